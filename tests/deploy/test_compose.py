"""What can be said of the compose file without starting it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from app.command.embedded import server_binary
from app.contract.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, Settings
from app.http import server
from app.http.binding import check_binding
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

pytestmark = pytest.mark.slow

SERVICES = compose()["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
each_service = pytest.mark.parametrize("name", SERVICES)


def seconds(duration: str) -> float:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups(default="0")
    return timedelta(minutes=int(minutes), seconds=int(rest)).total_seconds()


class _Loader(yaml.SafeLoader):
    """Reads Compose's tag `!override` as a plain list."""


def _plain(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return list(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("!override", _plain)
OVERRIDES = {
    file.stem: yaml.load(file.read_text(), _Loader)
    for file in sorted((ROOT / "deploy/compose").glob("*.yml"))
}


def test_files_match_compose_specification(tmp_path: Path) -> None:
    for name, override in OVERRIDES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(override))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, COMPOSE_FILE, *tmp_path.glob("*.json")], check=True)


@pytest.mark.parametrize("name", OVERRIDES)
def test_examples_of_overrides_fit_the_compose_file(name: str) -> None:
    override = OVERRIDES[name]
    known = {f"GAMMA_{name.upper()}" for name in Settings.model_fields}
    for service_name, service in override["services"].items():
        base = service.get("extends", {"file": COMPOSE_FILE.name, "service": service_name})
        assert base["file"] == COMPOSE_FILE.name
        assert base["service"] in SERVICES
        variables = service.get("environment", {})
        assert {v for v in variables if v.startswith("GAMMA_")} <= known
        assert set(service.get("networks", ())) <= set(override.get("networks", ()))
        for secret in service.get("secrets", ()):
            if isinstance(secret, str):  # of a setting, in GAMMA_SECRETS_DIR
                assert secret in override["secrets"]
                assert secret.upper() in known
                continue
            assert secret["source"] in override["secrets"]
            assert not secret["target"].startswith("/run/secrets")  # of our settings


def test_services() -> None:
    ours = {"api", "worker", "worker-gpu", "webhooks"}
    assert set(OURS) == ours
    assert set(SERVICES) == ours | {"redis", "prometheus", "alertmanager", "grafana"}


@each_service
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert PINNED.search(image), image
    if name in OURS:
        assert f":{VERSION}" in image
        assert SERVICES[name]["build"]["target"] in stages()


@each_service
def test_services_run_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
    user = service.get("user") or stages()[service["build"]["target"]].all("USER")[0]
    assert int(user.split(":")[0]) > 0


@each_service
def test_services_have_memory_limits(name: str) -> None:
    assert re.fullmatch(r"[1-9]\d*[mg]", with_defaults(SERVICES[name]["mem_limit"]))
    # A worker takes all that is idle, and gives way.
    assert float(with_defaults(SERVICES[name]["cpus"])) > 0 or SERVICES[name]["cpu_shares"] < 1024


def test_upload_space_fits_into_tmpfs() -> None:
    (folder,) = SERVICES["api"]["tmpfs"]
    size = int(re.fullmatch(r"/tmp:size=(\d+)m", folder).group(1)) * 2**20
    assert size > Settings().upload_space >= Settings().max_batch_upload


@each_service
def test_services_restart_and_have_a_health_check(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service.get("healthcheck") or stages()[service["build"]["target"]].all("HEALTHCHECK")


@each_service
def test_services_wait_for_healthy_dependencies(name: str) -> None:
    needs = {
        "api": {"redis"},
        "worker": {"redis"},
        "worker-gpu": {"redis"},
        "webhooks": {"redis"},
        "grafana": {"prometheus"},
    }
    found = SERVICES[name].get("depends_on", {})
    assert set(found) == needs.get(name, set())
    assert all(need == {"condition": "service_healthy"} for need in found.values())


def test_only_the_api_can_be_published_beyond_loopback() -> None:
    assert "${" in SERVICES["api"]["ports"][0].split(":")[0]
    assert SERVICES["grafana"]["ports"][0].startswith("127.0.0.1:")
    published = {
        name: [with_defaults(port) for port in service["ports"]]
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert published == {"api": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}


def test_network_access() -> None:
    programs = {"api", "worker", "worker-gpu", "webhooks"}
    members = {
        network: {name for name, service in SERVICES.items() if network in service["networks"]}
        for network in compose()["networks"]
    }
    assert members == {
        "backend": {"redis", *programs},
        "metrics": {"prometheus", "alertmanager", *programs},
        "dashboards": {"grafana", "prometheus"},
        "edge": {"api"},
        "console": {"grafana"},
        "egress": {"webhooks"},
        "notify": {"alertmanager"},
    }
    for name in ("backend", "metrics", "dashboards"):
        assert compose()["networks"][name] == {"internal": True}
    for name in ("edge", "console"):  # not internal, or the port could not be published
        assert compose()["networks"][name] == {
            "driver_opts": {"com.docker.network.bridge.enable_ip_masquerade": "false"}
        }


@pytest.mark.parametrize("name", ["bucket", "postgres", "traces"])
def test_the_default_route_of_the_api_is_by_the_network_of_the_override(name: str) -> None:
    override = yaml.safe_load((ROOT / f"deploy/compose/{name}.yml").read_text())
    assert all(network < "edge" for network in override["networks"])


def test_stop_timeout_covers_running_work() -> None:
    grace = {
        name: seconds(with_defaults(service["stop_grace_period"]))
        for name, service in SERVICES.items()
    }
    assert grace["api"] >= max(80, server._DRAIN + 5)
    for worker in ("worker", "worker-gpu"):
        given = SERVICES[worker]["environment"]["GAMMA_STOP_TIMEOUT"]
        assert SERVICES[worker]["stop_grace_period"] == f"{given}s"  # whatever it is set to
        assert grace[worker] == Settings().stop_timeout
    assert grace["webhooks"] > 2 * Settings().webhook_timeout
    assert grace["redis"] >= 30


def test_gpu_is_requested_only_in_its_profile() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"worker-gpu"}
    cpu, gpu = SERVICES["worker"], SERVICES["worker-gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert with_defaults(cpu["deploy"]["replicas"]) == "1"
    assert (cpu["environment"]["GAMMA_DEVICE"], gpu["environment"]["GAMMA_DEVICE"]) == (
        "cpu",
        "cuda",
    )
    assert "TORCH=cpu" in stages()["packages-worker"].all("ARG")
    assert gpu["build"]["args"]["TORCH"] == "cuda"
    assert cpu["image"] != gpu["image"]


@each_service
def test_mounts_exist_and_are_declared(name: str) -> None:
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


def test_services_get_only_their_secrets() -> None:
    found = {name: service.get("secrets") for name, service in SERVICES.items()}
    assert found == {
        "prometheus": None,
        "alertmanager": None,
        "grafana": None,
        "redis": ["gamma_redis_url"],
        "api": ["gamma_redis_url", "gamma_api_keys", "gamma_webhook_secrets"],
        "worker": ["gamma_redis_url"],
        "worker-gpu": ["gamma_redis_url"],
        "webhooks": ["gamma_redis_url", "gamma_webhook_secrets"],
    }
    for name, service in OURS.items():
        assert service["environment"][SECRETS_VARIABLE] == "/run/secrets", name
    assert set(compose()["secrets"]) <= {f"gamma_{name}" for name in Settings.model_fields}


def test_secret_files_are_ignored_by_git() -> None:
    for secret in compose()["secrets"].values():
        assert list(secret) == ["file"]
        assert secret["file"].startswith("./deploy/secrets/")
        subprocess.run(["git", "check-ignore", "-q", secret["file"]], cwd=ROOT, check=True)
    for name, service in SERVICES.items():
        variables = set(service.get("environment", ())) - {SECRETS_VARIABLE}
        assert not [v for v in variables if re.search(r"PASSW|SECRET|TOKEN|_KEY|_URL", v)], name


def make_secrets(folder: Path) -> str:
    return subprocess.run(
        ["sh", folder / "make-secrets.sh"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The secrets as the script makes them, in another folder."""
    (tmp_path / "deploy/secrets").mkdir(parents=True)
    shutil.copy(ROOT / "deploy/make-secrets.sh", tmp_path / "deploy")
    make_secrets(tmp_path / "deploy")
    return tmp_path / "deploy/secrets"


@pytest.fixture
def secret(secrets: Path) -> Path:
    return secrets / "gamma_redis_url"


def test_secret_files_have_restrictive_permissions(secrets: Path) -> None:
    assert {file.name for file in secrets.iterdir()} == set(compose()["secrets"])
    assert {file.stat().st_mode & 0o777 for file in secrets.iterdir()} == {0o444}
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_only_missing_secrets_are_created(secrets: Path) -> None:
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    (secrets / "gamma_webhook_secrets").unlink()
    said = make_secrets(secrets.parent)
    after = {file.name: file.read_text() for file in secrets.iterdir()}
    assert said == f"API key: {after['gamma_api_keys'].removeprefix('default=')}\n"
    assert {name for name in before if before[name] != after[name]} == {"gamma_webhook_secrets"}


@pytest.mark.parametrize("name", ["api", "webhooks", "worker"])
def test_program_starts_with_the_secrets(
    secrets: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = SERVICES[name]
    environment: dict[str, Any] = dict(service["environment"])
    for stage in lineage(service["build"]["target"]):
        environment = {**stage.environment(), **environment}
    mounted = secrets.parent / name
    mounted.mkdir()
    for file in service["secrets"]:
        shutil.copy(secrets / file, mounted)
    environment[SECRETS_VARIABLE] = str(mounted)
    for variable, value in environment.items():
        if variable.startswith("GAMMA_"):
            default = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)
            monkeypatch.setenv(variable, default)
    settings = Settings.load()
    assert re.fullmatch(r"redis://:[0-9a-f]{64}@redis:6379/0", settings.required_redis_url)
    assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", 9400)
    assert (settings.webhook_secrets is not None) == (name != "worker")
    if name == "api":
        check_binding(settings)
        assert (settings.host, settings.port) == ("0.0.0.0", 8000)
        assert settings.api_keys is not None
        key = (secrets / "gamma_api_keys").read_text().split("=")[1]
        assert settings.api_keys.find(key).caller == "default"


class ComposedRedis:
    """The service `redis` of the compose file, without its container."""

    script = ROOT / "deploy/redis/redis.sh"

    def __init__(self, secret: Path, folder: Path) -> None:
        self.port = free_port()
        self.environment = {
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
            self._command, cwd=self._data, env=self.environment, stdout=subprocess.DEVNULL
        )

    def ping(self) -> int:
        command = ["sh", self.script, "ping", "-p", str(self.port)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, check=False
        ).returncode

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while self.ping() != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


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


def test_redis_files_are_private(redis: ComposedRedis, tmp_path: Path) -> None:
    redis.wait()
    files = list((tmp_path / "data").rglob("*"))
    assert any(file.suffix == ".aof" for file in files)
    assert not any(file.stat().st_mode & 0o077 for file in files)


def test_redis_requires_password_persists_and_never_evicts(
    redis: ComposedRedis, secret: Path
) -> None:
    redis.wait()
    with pytest.raises(AuthenticationError):
        Redis(port=redis.port).ping()
    url = secret.read_text().replace("redis:6379", f"127.0.0.1:{redis.port}")
    with Redis.from_url(url) as client:
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


def test_redis_password_is_not_in_arguments(redis: ComposedRedis, secret: Path) -> None:
    redis.wait()
    password = secret.read_text().split(":")[2].split("@")[0]
    arguments = Path(f"/proc/{redis.process.pid}/cmdline").read_text()
    assert "valkey-server" in arguments
    assert password not in arguments


@pytest.mark.parametrize("url", ["", "redis://redis:6379/0", "redis://:p%40ss@redis:6379/0"])
def test_redis_without_password_does_not_start(tmp_path: Path, url: str) -> None:
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


def test_a_snapshot_restores_what_was_there(
    redis: ComposedRedis, secret: Path, tmp_path: Path
) -> None:
    redis.wait()
    url = secret.read_text().replace("redis:6379", f"127.0.0.1:{redis.port}")
    (tmp_path / "url").write_text(url)
    environment = redis.environment | {"GAMMA_REDIS_URL_FILE": str(tmp_path / "url")}
    backups = tmp_path / "backups"
    backups.mkdir()
    for day in (1, 2):
        (backups / f"redis-2026010{day}T000000Z.rdb").touch()

    def run(*words: object, folder: Path = tmp_path) -> None:
        command = ["sh", redis.script, *map(str, words)]
        subprocess.run(command, cwd=folder, env=environment, check=True)

    with Redis.from_url(url) as client:
        client.set("kept", b"\0" * 2**20, ex=3600)
        run("backup", backups, 2)
        client.flushall()
    older, newest = sorted(file.name for file in backups.iterdir())
    assert older == "redis-20260102T000000Z.rdb"
    assert (backups / newest).stat().st_mode & 0o077 == 0
    assert redis.stop() == 0
    data = tmp_path / "data"
    run("restore", backups / newest, folder=data)
    redis.start()
    redis.wait()
    with Redis.from_url(url) as client:
        assert client.dbsize() == 0  # data are never replaced
        assert redis.stop() == 0
        shutil.rmtree(data / "appendonlydir")
        run("restore", backups / newest, folder=data)
        redis.start()
        redis.wait()
        assert client.strlen("kept") == 2**20
        assert 3000 < client.ttl("kept") <= 3600
        client.set("new", 1)
        assert redis.stop() == 0
        redis.start()
        redis.wait()
        assert client.get("new") == b"1"
