"""What can be said of the compose file without starting it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from app import server, supervisor
from app.embedded import server_binary
from app.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, Settings
from tests.conftest import free_port, require_program
from tests.deploy.files import (
    COMPOSE_FILE,
    PINNED,
    ROOT,
    VERSION,
    compose,
    lineage,
    stages,
    with_defaults,
)

SERVICES = compose()["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
each_service = pytest.mark.parametrize("name", SERVICES)


def seconds(duration: str) -> float:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups(default="0")
    return timedelta(minutes=int(minutes), seconds=int(rest)).total_seconds()


def test_it_follows_the_compose_specification() -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", COMPOSE_FILE),
        ],
        check=True,
    )


def test_the_services_are_these() -> None:
    assert set(SERVICES) == {"redis", "api", "worker", "worker-gpu", "prometheus", "grafana"}


@each_service
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert PINNED.search(image), image
    if name in OURS:
        assert f":{VERSION}" in image
        assert SERVICES[name]["build"]["target"] in stages()


@each_service
def test_a_service_has_no_more_power_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
    user = service.get("user") or stages()[service["build"]["target"]].all("USER")[0]
    assert int(user.split(":")[0]) > 0


@each_service
def test_a_service_comes_back_and_says_how_it_is(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service.get("healthcheck") or stages()[service["build"]["target"]].all("HEALTHCHECK")


@each_service
def test_a_service_waits_until_what_it_needs_is_healthy(name: str) -> None:
    needs = {
        "api": {"redis"},
        "worker": {"redis"},
        "worker-gpu": {"redis"},
        "grafana": {"prometheus"},
    }
    found = SERVICES[name].get("depends_on", {})
    assert set(found) == needs.get(name, set())
    assert all(need == {"condition": "service_healthy"} for need in found.values())


def test_only_people_s_ports_are_published_and_only_on_loopback() -> None:
    published = {
        name: [with_defaults(port) for port in service["ports"]]
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert published == {"api": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}


def test_redis_and_prometheus_are_out_of_reach() -> None:
    assert compose()["networks"]["backend"] == {"internal": True}
    for name in ("redis", "prometheus"):
        assert SERVICES[name]["networks"] == ["backend"]


def test_stopping_waits_for_the_work_at_hand() -> None:
    grace = {name: seconds(service["stop_grace_period"]) for name, service in SERVICES.items()}
    assert grace["api"] >= max(80, server._DRAIN + 5)
    for worker in ("worker", "worker-gpu"):
        assert grace[worker] > supervisor._WORKER_DRAIN
    assert grace["redis"] >= 30


def test_a_gpu_is_asked_for_only_in_its_profile() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"worker-gpu"}
    cpu, gpu = SERVICES["worker"], SERVICES["worker-gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert with_defaults(cpu["deploy"]["replicas"]) == "1"
    assert (cpu["environment"]["GAMMA_DEVICE"], gpu["environment"]["GAMMA_DEVICE"]) == (
        "cpu",
        "cuda",
    )
    default = stages()["build-worker"].all("ARG")[0]
    assert default.endswith("/whl/cpu")
    assert re.search(r"/whl/cu\d+$", gpu["build"]["args"]["TORCH_INDEX"])
    assert cpu["image"] != gpu["image"]


@each_service
def test_what_is_mounted_exists_and_is_declared(name: str) -> None:
    declared = compose()["volumes"]
    for volume in SERVICES[name].get("volumes", ()):
        source, _, *mode = volume.split(":")
        if source.startswith("."):
            assert (ROOT / source).is_dir(), source
            assert mode == ["ro"]
        else:
            assert source in declared


def test_variables_are_settings() -> None:
    known = {f"GAMMA_{name.upper()}" for name in Settings.model_fields}
    for service in OURS.values():
        image = [stage.environment() for stage in lineage(service["build"]["target"])]
        for name in {**service["environment"], **dict.fromkeys(k for e in image for k in e)}:
            if name.startswith("GAMMA_"):
                assert name in known | {SECRETS_VARIABLE, CONFIG_VARIABLE}


def test_secrets_are_files_that_git_does_not_see() -> None:
    for secret in compose()["secrets"].values():
        assert list(secret) == ["file"]
        assert secret["file"].startswith("./deploy/secrets/")
        subprocess.run(["git", "check-ignore", "-q", secret["file"]], cwd=ROOT, check=True)
    for name, service in SERVICES.items():
        variables = set(service.get("environment", ())) - {SECRETS_VARIABLE}
        assert not [v for v in variables if re.search(r"PASSW|SECRET|TOKEN|_KEY|_URL", v)], name


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The secret as the command at the top of the compose file makes it, in another folder."""
    (tmp_path / "deploy/secrets").mkdir(parents=True)
    command = re.search(r"^#   (chmod 700 .*)$", COMPOSE_FILE.read_text(), re.MULTILINE)
    subprocess.run(["sh", "-ec", command.group(1)], cwd=tmp_path, check=True)
    return tmp_path / "deploy/secrets/gamma_redis_url"


def test_the_secret_is_readable_in_containers_and_to_nobody_else_here(secret: Path) -> None:
    assert secret.stat().st_mode & 0o777 == 0o444
    assert secret.parent.stat().st_mode & 0o777 == 0o700


def test_the_api_starts_with_it(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, Any] = dict(SERVICES["api"]["environment"])
    for stage in lineage("api"):
        environment = {**stage.environment(), **environment}
    assert environment[SECRETS_VARIABLE] == "/run/secrets"
    environment[SECRETS_VARIABLE] = str(secret.parent)
    for name, value in environment.items():
        if name.startswith("GAMMA_"):
            monkeypatch.setenv(name, value)
    settings = Settings.load()
    server.check_binding(settings)
    assert re.fullmatch(r"redis://:[0-9a-f]{64}@redis:6379/0", settings.required_redis_url)
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", 9400)


class ComposedRedis:
    """The service `redis` of the compose file, without its container."""

    script = ROOT / "deploy/redis/redis.sh"

    def __init__(self, secret: Path, folder: Path) -> None:
        self.port = free_port()
        self._environment = {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "GAMMA_REDIS_URL_FILE": str(secret),
        }
        self._data = folder / "data"
        self._data.mkdir()
        arguments = [with_defaults(word) for word in SERVICES["redis"]["command"]]
        self._command = ["sh", self.script, *arguments, "--port", str(self.port)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, cwd=self._data, env=self._environment, stdout=subprocess.DEVNULL
        )

    def ping(self) -> int:
        command = ["sh", self.script, "ping", "-p", str(self.port)]
        return subprocess.run(
            command, env=self._environment, capture_output=True, check=False
        ).returncode

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while self.ping() != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def redis(secret: Path, tmp_path: Path) -> Iterator[ComposedRedis]:
    client = require_program("valkey-cli", "redis-cli")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/valkey-server").symlink_to(server_binary())
    (tmp_path / "bin/valkey-cli").symlink_to(client)
    running = ComposedRedis(secret, tmp_path)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_redis_wants_the_password_keeps_its_data_and_evicts_nothing(
    redis: ComposedRedis, secret: Path
) -> None:
    redis.wait()
    with pytest.raises(AuthenticationError):
        Redis(port=redis.port).ping()
    url = secret.read_text().replace("redis:6379", f"127.0.0.1:{redis.port}")
    client = Redis.from_url(url)
    for name, value in {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory": str(2 * 2**30),
        "maxmemory-policy": "noeviction",
    }.items():
        assert client.config_get(name)[name] == value
    client.set("kept", "value")
    assert redis.stop() == 0
    redis.start()
    redis.wait()
    assert client.get("kept") == b"value"
    client.config_set("maxmemory", 1)
    with pytest.raises((RedisError, ResponseError), match="maxmemory"):
        client.set("refused", "value")
    client.close()


def test_redis_s_password_is_in_no_argument_list(redis: ComposedRedis, secret: Path) -> None:
    redis.wait()
    password = secret.read_text().split(":")[2].split("@")[0]
    arguments = Path(f"/proc/{redis.process.pid}/cmdline").read_text()
    assert "valkey-server" in arguments
    assert password not in arguments


@pytest.mark.parametrize("url", ["", "redis://redis:6379/0", "redis://:p%40ss@redis:6379/0"])
def test_redis_does_not_start_open(tmp_path: Path, url: str) -> None:
    (tmp_path / "url").write_text(url)
    refused = subprocess.run(
        ["sh", ComposedRedis.script, "serve"],
        env={"PATH": "/usr/bin:/bin", "GAMMA_REDIS_URL_FILE": str(tmp_path / "url")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "PASSWORD" in refused.stderr
