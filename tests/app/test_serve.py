"""`gamma serve` as a user starts and stops it."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.conftest import Serve, encode, photo, wait_until_final

QUICK = {"GAMMA_MAX_BATCH": "2"}  # fewer batch sizes to warm up


def descendants(service: Serve) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_and_no_socket(tmp_path: Path, number: int) -> None:
    service = Serve(tmp_path / "data", **QUICK).wait_until_ready()
    processes = descendants(service)
    assert len(processes) == 7  # Redis, worker, API, and two decoders of each of the latter
    assert (service.data_dir / "redis.sock").is_socket()
    assert service.stop(number) == 0
    assert not psutil.wait_procs(processes, timeout=5)[1]
    assert not (service.data_dir / "redis.sock").exists()


def test_queued_work_survives_a_restart(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = Serve(data_dir, **QUICK).wait_until_ready()
    with first.client() as client:
        answers = [
            client.post("/v1/detections", files={"file": encode(photo(900, 900, seed))})
            for seed in range(6)
        ]
    ids = [answer.json()["id"] for answer in answers]
    assert first.stop() == 0
    second = Serve(data_dir, **QUICK).wait_until_ready()
    try:
        with second.client() as client:
            records = [wait_until_final(client, name) for name in ids]
        assert [record["status"] for record in records] == ["succeeded"] * len(ids)
    finally:
        second.stop()


def test_a_killed_worker_is_replaced_and_its_work_done(tmp_path: Path) -> None:
    service = Serve(tmp_path / "data", **QUICK).wait_until_ready()
    try:
        (worker,) = (p for p in descendants(service) if p.cmdline()[-1] == "worker")
        worker.kill()
        worker.wait()  # else the queue may hand the job to the dying process
        with service.client() as client:
            answer = client.post(
                "/v1/detections", files={"file": encode(photo())}, headers={"Prefer": "wait=60"}
            )
        assert answer.status_code == 200
        assert "died" in service.log
    finally:
        service.stop()


def test_killing_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    service = Serve(tmp_path / "data", **QUICK).wait_until_ready()
    processes = descendants(service)
    service.stop(signal.SIGKILL)
    assert not psutil.wait_procs(processes, timeout=30)[1]


def test_data_directory_and_port_in_use(service: Serve, tmp_path: Path) -> None:
    second = Serve(service.data_dir)
    assert second.stop(0) == 1
    assert "in use by another" in second.log

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        third = Serve(tmp_path / "data", "--port", str(taken.getsockname()[1]))
        assert third.stop(0) == 1
    assert "api ended at start" in third.log


def test_a_deep_data_directory_needs_no_short_socket_path(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["directory-with-a-long-name"] * 5, "data")
    deep.parent.mkdir(parents=True)
    service = Serve(deep, **QUICK).wait_until_ready()
    try:
        with service.client() as client:
            assert client.get("/readyz").status_code == 200
    finally:
        assert service.stop() == 0


def test_binding_beyond_loopback_must_be_asked_for(tmp_path: Path) -> None:
    refused = Serve(tmp_path / "data", "--host", "0.0.0.0")
    assert refused.stop(0) == 1
    assert "--allow-anonymous" in refused.log


def test_keys(tmp_path: Path) -> None:
    secret = "alice-secret-0123456789"
    service = Serve(tmp_path / "data", GAMMA_API_KEYS=f"alice={secret}", **QUICK)
    try:
        files = {"file": encode(photo(64, 64), "PNG")}
        with service.wait_until_ready().client() as client:
            assert client.get("/").status_code == 200
            assert client.post("/v1/detections", files=files).status_code == 401
            client.headers["Authorization"] = f"Bearer {secret}"
            answer = client.post("/v1/detections", files=files, headers={"Prefer": "wait=60"})
            assert answer.status_code == 200
            assert client.get(answer.json()["masks"]["ai"]["mask_url"]).status_code == 200
    finally:
        assert service.stop() == 0
    assert secret not in service.log
