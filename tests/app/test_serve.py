"""`gamma serve`, run as a process."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from redis import Redis
from rq.suspension import resume, suspend

from tests.app.conftest import wait_for
from tests.app.test_cli import gamma_here
from tests.conftest import Serve, encode, free_port, free_ports, photo, wait_until_final
from tests.deploy.live import serve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quick(small_model: Path) -> dict[str, str]:
    """Settings of a service that is ready soon."""
    return {"GAMMA_CHECKPOINT": str(small_model)}


def descendants(service: Serve) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children(recursive=True)


def kill_redis(service: Serve) -> None:
    (redis,) = (p for p in descendants(service) if "unixsocket" in " ".join(p.cmdline()))
    redis.kill()


def stopped(service: Serve, number: int) -> int:
    """Send a signal; returns the exit code. No process and no socket is left."""
    processes = descendants(service)
    code = service.stop(number)
    assert not psutil.wait_procs(processes, timeout=60)[1]
    return code


def test_restart_a_killed_worker_and_a_killed_supervisor(
    tmp_path: Path, quick: dict[str, str]
) -> None:
    """Queued work survives the first two; none of them leaves a process."""
    data_dir = tmp_path / "data"
    socket_file = data_dir / "redis.sock"
    first = Serve(data_dir, **quick).wait_until_ready()
    try:
        assert socket_file.is_socket()
        with Redis.from_url(f"unix://{socket_file}") as redis, first.client() as client:
            suspend(redis)  # nothing is done before the restart
            answers = [
                client.post("/v1/detections", files={"file": encode(photo(90, 90, seed))})
                for seed in range(6)
            ]
        ids = [answer.json()["id"] for answer in answers]
        assert stopped(first, signal.SIGTERM) == 0
        assert not socket_file.exists()
    finally:
        first.stop()
    second = Serve(data_dir, forked=False, **quick).wait_until_ready()
    try:
        assert (
            len(descendants(second)) == 7
        )  # Redis, worker, API, and two decoders of each of the latter
        worker = second.child("worker")
        worker.kill()
        worker.wait()  # else the queue may hand a job to the dying process
        with Redis.from_url(f"unix://{socket_file}") as redis, second.client() as client:
            resume(redis)
            records = [wait_until_final(client, name) for name in ids]
        assert [record["status"] for record in records] == ["succeeded"] * len(ids)
        assert "died" in second.log
        stopped(second, signal.SIGKILL)
    finally:
        second.stop()


def test_killed_redis_is_restarted_or_the_service_ends(tmp_path: Path, small_model: Path) -> None:
    service = serve(tmp_path, small_model, forked=False).wait_until_ready()
    try:
        with service.client() as client:

            def submit(seed: int) -> httpx2.Response:
                return client.post("/v1/detections", files={"file": encode(photo(seed=seed))})

            accepted = [submit(seed).json()["id"] for seed in range(3)]
            kill_redis(service)
            deadline = time.monotonic() + 60
            while (answer := submit(3)).status_code != 202:
                assert answer.json()["code"] == "redis_unavailable"
                assert time.monotonic() < deadline, service.log
            for name in [*accepted, answer.json()["id"]]:
                assert wait_until_final(client, name)["status"] == "succeeded"
        processes = descendants(service)
        for file in (service.data_dir / "appendonlydir").glob("*.manifest"):
            file.write_text("no manifest\n")
        kill_redis(service)
        assert service.stop(0) == 1
        assert "gamma: the private Redis " in service.log
        assert "redis.log" in service.log
        assert not psutil.wait_procs(processes, timeout=60)[1]
    finally:
        service.stop()


KEY = "alice-secret-0123456789"


@pytest.fixture(scope="module")
def unusual(
    tmp_path_factory: pytest.TempPathFactory, quick: dict[str, str]
) -> Iterator[tuple[Serve, dict[str, str]]]:
    """A service with keys, proxy variables and a long path; and the proxy variables.

    Its processes are new ones, not forked.
    """
    folder = tmp_path_factory.mktemp("unusual").joinpath(*["directory-with-a-long-name"] * 5)
    folder.mkdir(parents=True)
    nobody = f"127.0.0.1:{free_port()}"
    proxies = {
        name: f"{scheme}://{nobody}"
        for scheme, upper in (("http", "HTTP_PROXY"), ("socks5", "ALL_PROXY"))
        for name in (upper, upper.lower())
    }
    service = Serve(
        folder / "data", forked=False, GAMMA_API_KEYS=f"alice={KEY}", **quick, **proxies
    )
    try:
        yield service.wait_until_ready(), proxies
        assert stopped(service, signal.SIGINT) == 0
        assert not (service.data_dir / "redis.sock").exists()
    finally:
        service.stop()


def test_proxy_variables_are_ignored_between_processes(
    tmp_path: Path, unusual: tuple[Serve, dict[str, str]]
) -> None:
    service, proxies = unusual
    ports = {
        "GAMMA_PORT": service.url.rpartition(":")[2],
        "GAMMA_METRICS_PORT": str(service.metrics_port),
    }
    doctor = gamma_here("doctor", cwd=tmp_path, **ports, **proxies)
    assert doctor.stdout.count("GAMMA is running") == 2


def test_long_data_directory_path(unusual: tuple[Serve, dict[str, str]]) -> None:
    service, _ = unusual
    assert len(str(service.data_dir / "redis.sock")) > 108  # the longest address of a socket
    with service.client() as client:
        assert client.get("/readyz").status_code == 200


def refused(data_dir: Path, *arguments: str) -> str:
    """What `gamma serve` prints that cannot start; `arguments` override two free ports."""
    first = free_ports(3)
    ports = "--port", str(first), "--metrics-port", str(first + 1)
    given = "serve", "--data-dir", str(data_dir), *ports, *arguments
    ended = gamma_here(*given, cwd=data_dir.parent)
    assert ended.returncode == 1
    return ended.stderr


def test_a_data_directory_in_use(unusual: tuple[Serve, dict[str, str]]) -> None:
    assert "in use by another" in refused(unusual[0].data_dir)


def test_keys(unusual: tuple[Serve, dict[str, str]]) -> None:
    service, _ = unusual
    files = {"file": encode(photo(64, 64), "PNG")}
    with service.client() as client:
        assert client.get("/").status_code == 200
        assert client.post("/v1/detections", files=files).status_code == 401
        client.headers["Authorization"] = f"Bearer {KEY}"
        answer = client.post("/v1/detections", files=files, headers={"Prefer": "wait=60"})
        assert answer.status_code == 200
        record = answer.json()
        assert client.get(record["masks"]["ai"]["mask_url"]).status_code == 200
    wait_for(lambda: record["id"] in service.log)  # requests are logged
    assert "key_missing" in service.log
    assert KEY not in service.log


@pytest.fixture
def taken() -> Iterator[int]:
    """A port in use by another program; the port below it is free."""
    first = free_ports(2)
    with socket.socket() as other:
        other.bind(("127.0.0.1", first + 1))
        other.listen()
        yield first + 1


@pytest.mark.parametrize(
    ("option", "below", "setting"),
    [
        ("--port", 0, "GAMMA_PORT"),
        ("--metrics-port", 0, "GAMMA_METRICS_PORT"),
        ("--metrics-port", 1, "GAMMA_METRICS_PORT + 1"),
    ],
)
def test_a_port_in_use(tmp_path: Path, taken: int, option: str, below: int, setting: str) -> None:
    printed = refused(tmp_path / "data", option, str(taken - below))
    assert f"port {taken} ({setting}) is in use by another program" in printed
    assert f"set {setting.split()[0]}" in printed


@pytest.mark.parametrize("below", [0, 1])
def test_one_port_for_two_processes(tmp_path: Path, below: int) -> None:
    port = free_ports(3) + 2
    ports = "--port", str(port), "--metrics-port", str(port - below)
    printed = refused(tmp_path / "data", *ports)
    assert f"port {port} is both GAMMA_PORT and GAMMA_METRICS_PORT" in printed


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("api", "GAMMA_PORT"),
        ("api", "GAMMA_METRICS_PORT"),
        ("worker", "GAMMA_METRICS_PORT"),
        ("webhooks", "GAMMA_METRICS_PORT"),
    ],
)
def test_port_in_use_for_single_commands(
    tmp_path: Path, taken: int, command: str, setting: str
) -> None:
    free = {"GAMMA_PORT": str(free_port()), "GAMMA_METRICS_PORT": str(free_port())}
    own = {"GAMMA_REDIS_URL": f"redis://127.0.0.1:{free_port()}", setting: str(taken)}
    ended = gamma_here(command, cwd=tmp_path, **{**free, **own})
    assert ended.returncode == 1
    assert f"port {taken} ({setting}) is in use by another program" in ended.stderr


def test_binding_beyond_loopback_needs_allow_anonymous(tmp_path: Path) -> None:
    assert "--allow-anonymous" in refused(tmp_path / "data", "--host", "0.0.0.0")
