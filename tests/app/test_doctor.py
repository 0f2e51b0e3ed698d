"""`gamma doctor` with real servers, most of them misconfigured."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq.suspension import suspend

from app.command import supervisor
from app.command.doctor import machine, redis_server, storage
from app.command.doctor.findings import Finding, State
from app.command.embedded import server_binary
from app.contract.client import connect
from app.contract.keys import ANONYMOUS
from app.contract.models import WorkerInfo
from app.contract.schemas import ModelInfo
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Submission
from app.http import descriptors, examples, metrics
from app.webhooks.queue import Deliveries
from pictures.findings import View
from tests.app.conftest import _THRESHOLDS as THRESHOLDS
from tests.app.test_cli import gamma_here
from tests.app.test_webhook_rules import SECRET
from tests.buckets import Bucket
from tests.conftest import free_port

GOOD = ("--appendonly", "yes", "--maxmemory", "64mb", "--maxmemory-policy", "noeviction")
FEW = 30  # waiting jobs, which fit into 64 MB


@contextlib.contextmanager
def server(folder: Path, *arguments: str) -> Iterator[str]:
    """Run a Redis server with these arguments; yields its URL without a password."""
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(
        [str(server_binary()), "--port", str(port), "--dir", str(folder), "--save", "", *arguments],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("good") / "redis", *GOOD) as url:
        yield url


@pytest.fixture
def redis(good: str) -> Iterator[Redis]:
    with connect(good) as connected:
        connected.flushall()
        yield connected


def found(findings: list[Finding], subject: str, state: State) -> str:
    """Text of the only finding about a subject; asserts its state."""
    (one,) = (finding for finding in findings if finding.subject == subject)
    assert one.state is state, one
    assert (one.advice is None) is (state is State.OK)
    return f"{one.found} {one.advice}"


def examined(url: str, **settings: object) -> list[Finding]:
    return redis_server.examine(Settings(redis_url=url, **{"queue_limit": FEW, **settings}))


def live(redis: Redis, name: str, version: str) -> None:
    worker = WorkerInfo(
        name=name,
        model=ModelInfo(name="gamma", version=version),
        trained=True,
        backbone="none",
        parameters=1,
        crop_size=16,
        thresholds=THRESHOLDS,
        device="cpu",
        dtype="float32",
    )
    Store(redis).workers.announce(worker, 600)


def test_a_good_server_and_its_workers(good: str, redis: Redis) -> None:
    findings = examined(good)
    assert "append-only file on" in found(findings, "redis", State.OK)
    assert "noeviction" in found(findings, "memory", State.OK)
    found(findings, "clock", State.OK)
    assert "gamma worker" in found(findings, "workers", State.NOTE)
    redis.rpush("rq:queue:gamma", "waiting")
    assert "1 jobs wait" in found(examined(good), "workers", State.WRONG)
    live(redis, "one", "7")
    assert "1 ready, gamma 7" in found(examined(good), "workers", State.OK)
    live(redis, "two", "8")
    assert "gamma 7, gamma 8" in found(examined(good), "workers", State.NOTE)


def test_deliveries_without_process_or_secret(good: str, redis: Redis) -> None:
    with_secret = {"webhook_secrets": SECRET, "webhook_allow": "127.0.0.1"}
    assert "gamma webhooks" in found(examined(good, **with_secret), "webhooks", State.NOTE)
    deliveries = Deliveries(redis, Settings(redis_url=good, **with_secret))
    submission = Submission(ANONYMOUS, b"", View.TILED)
    submission.detection = examples.QUEUED
    submission.deadline = datetime.now(UTC) + timedelta(hours=1)
    with redis.pipeline() as pipeline:
        deliveries.plan(pipeline, submission, "http://127.0.0.1:9/")
        pipeline.execute()
    assert "no process" in found(examined(good, **with_secret), "webhooks", State.WRONG)
    assert "GAMMA_WEBHOOK_SECRETS" in found(examined(good), "webhooks", State.WRONG)
    idle = machine.webhooks(Settings(webhook_allow="127.0.0.1"))
    assert "openssl rand" in found(idle, "webhooks", State.WRONG)


def test_redis_without_file_and_limit_that_evicts(tmp_path: Path) -> None:
    with server(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru") as url:
        findings = examined(url)
        assert "appendonly yes" in found(findings, "redis", State.WRONG)
        memory = [finding for finding in findings if finding.subject == "memory"]
        assert [finding.state for finding in memory] == [State.WRONG, State.WRONG]
        assert "allkeys-lru" in memory[0].found
        assert "maxmemory is not set" in memory[1].found


def test_redis_without_file_is_accepted_if_configured(tmp_path: Path) -> None:
    with server(tmp_path / "redis", *GOOD[2:]) as url:
        assert "GAMMA_REQUIRE_APPEND_ONLY" in found(examined(url), "redis", State.WRONG)
        findings = examined(url, require_append_only=False)
        assert "no append-only file" in found(findings, "redis", State.OK)
        for required in (True, False):
            settings = Settings(redis_url=url, require_append_only=required)
            told = {family.name for family in metrics._QueueCollector(settings).collect()}
            assert ("gamma_redis_append_only" in told) is required


def test_valkey_version(good: str, redis: Redis) -> None:
    info = redis.info()
    assert info["server_name"] == "valkey"
    assert info["valkey_version"] != info["redis_version"]
    told = found(examined(good), "redis", State.OK)
    assert told.startswith(f"valkey {info['valkey_version']}, ")


def test_suspended_queue(good: str, redis: Redis) -> None:
    def suspended() -> float:
        families = metrics._QueueCollector(Settings(redis_url=good)).collect()
        (family,) = (one for one in families if one.name == "gamma_queue_suspended")
        return family.samples[0].value

    assert suspended() == 0
    suspend(redis)
    assert "rq resume" in found(examined(good), "queue", State.WRONG)
    assert suspended() == 1


def test_memory_limit_too_low_for_the_queue_limit(good: str, tmp_path: Path) -> None:
    told = found(examined(good, queue_limit=10_000), "memory", State.NOTE)
    assert "GAMMA_QUEUE_LIMIT=36" in told  # docs/capacity.md: 1674 kB each while they wait
    told = found(examined(good, queue_limit=10_000, storage_limit=0.45), "memory", State.NOTE)
    assert "GAMMA_QUEUE_LIMIT=18" in told
    found(examined(good, queue_limit=2_000, store="s3://bucket"), "memory", State.OK)
    private = Settings(data_dir=tmp_path, redis_maxmemory=2**26, queue_limit=10_000)
    assert "GAMMA_REDIS_MAXMEMORY" in found(redis_server.examine(private), "memory", State.NOTE)
    enough = Settings(data_dir=tmp_path, queue_limit=1000)
    assert {one.subject for one in redis_server.examine(enough)} == {"redis"}


def test_open_files_limit_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = 256, 1000
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: (soft, hard))
    raised = []
    monkeypatch.setattr(descriptors.resource, "setrlimit", lambda _, both: raised.append(both))
    few, many = Settings(max_connections=800), Settings(max_connections=5000)
    assert machine.files(few) == []
    told = found(machine.files(many), "files", State.WRONG)
    assert "GAMMA_MAX_CONNECTIONS=800" in told
    descriptors.provide(few)
    descriptors.provide(many)
    assert raised == [(1000, 1000), (1000, 1000)]
    descriptors.provide(Settings(max_connections=50))
    assert len(raised) == 2


def test_full_redis(good: str, redis: Redis) -> None:
    redis.set("ballast", b"x" * (16 * 2**20))
    assert "storage_full" in found(examined(good, storage_limit=0.2), "memory", State.WRONG)
    found(examined(good), "memory", State.OK)
    redis.hset("gamma:reserved", "", 50 * 2**20)
    assert "50.0MiB reserved" in found(examined(good), "memory", State.WRONG)


def test_password_permissions_and_replica(tmp_path: Path, good: str) -> None:
    with server(tmp_path / "redis", *GOOD, "--requirepass", "secret-of-redis") as url:
        for credentials in ("", ":not-it@"):
            wrong = examined(url.replace("//", f"//{credentials}"))
            assert "password" in found(wrong, "redis", State.WRONG)
            assert "not-it" not in repr(wrong)
        right = url.replace("//", "//:secret-of-redis@")
        found(examined(right), "redis", State.OK)
        with connect(right) as redis:
            redis.acl_setuser("weak", enabled=True, passwords=["+weak"], commands=["+ping"])
            weak = examined(url.replace("//", "//weak:weak@"))
            assert "ACL LOG" in found(weak, "redis", State.WRONG)
            host, port = good.removeprefix("redis://").removesuffix("/0").split(":")
            redis.replicaof(host, port)
            states = [one.state for one in examined(right) if "replica" in one.found]
            assert states == [State.WRONG]


def test_no_redis(tmp_path: Path) -> None:
    away = examined(f"redis://127.0.0.1:{free_port()}/0")
    assert "does not answer" in found(away, "redis", State.WRONG)


def test_clock_skew(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true_time = time.time
    for skew, word in ((3600, "ahead of"), (-3600, "behind")):
        monkeypatch.setattr(redis_server.time, "time", lambda skew=skew: true_time() + skew)
        text = found(examined(good), "clock", State.WRONG)
        assert f"3600 s {word}" in text
        assert "NTP" in text


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(machine.disk(Settings(data_dir=tmp_path / "new")), "disk", State.OK)
    (tmp_path / "file").write_text("")
    inside = machine.disk(Settings(data_dir=tmp_path / "file" / "data"))
    assert "cannot be written" in found(inside, "disk", State.WRONG)
    small = machine.disk(Settings(data_dir=tmp_path, redis_maxmemory=2**60))
    assert "GAMMA_REDIS_MAXMEMORY" in found(small, "disk", State.NOTE)
    usage = machine.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    assert "free some space" in found(
        machine.disk(Settings(data_dir=tmp_path)), "disk", State.WRONG
    )


def test_missing_or_broken_model(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        (tmp_path / "config.json").write_text("{")
        text = found(machine.model(Settings(checkpoint=str(folder))), "model", State.WRONG)
        assert str(folder) in text
        assert "GAMMA_CHECKPOINT" in text


def test_unused_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(supervisor, "_NVIDIA_DRIVERS", (tmp_path,))  # as if there were one
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in found(machine.device(Settings()), "device", State.WRONG)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "nvidia-smi" in found(machine.device(Settings()), "device", State.WRONG)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = found(machine.device(Settings()), "device", State.WRONG)
    assert "CUDA_VISIBLE_DEVICES=''" in text
    assert machine.device(Settings(device="cpu")) == []
    text = found(machine.model(Settings(device="cuda")), "device", State.WRONG)
    assert "CUDA_VISIBLE_DEVICES=''" in text


def test_ports() -> None:
    class Handler(BaseHTTPRequestHandler):
        page = b"something else"

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.page)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
        settings = Settings(port=other.server_port, metrics_port=free_port())
        api, metrics = machine.ports(settings)
        assert (api.state, metrics.state) == (State.WRONG, State.OK)
        assert "another program" in api.found
        Handler.page = b'{"status":"ok"}'
        assert "GAMMA is running" in machine.ports(settings)[0].found
        other.shutdown()
    foreign = machine.ports(Settings(host="192.0.2.1", metrics_port=free_port()))[0]
    assert foreign.state is State.WRONG


def test_access() -> None:
    wide = machine.access(Settings(host="0.0.0.0"))
    assert "GAMMA_API_KEYS" in found(wide, "access", State.WRONG)
    open_ = machine.access(Settings(host="0.0.0.0", allow_anonymous=True))
    found(open_, "access", State.NOTE)
    found(machine.access(Settings()), "access", State.OK)


@pytest.mark.slow
def test_the_command(tmp_path: Path, good: str, redis: Redis, small_model: Path) -> None:
    environment = {
        "GAMMA_PORT": str(free_port()),
        "GAMMA_METRICS_PORT": str(free_port()),
        "GAMMA_REDIS_URL": good,
        "GAMMA_CHECKPOINT": str(small_model),
    }
    fine = gamma_here("doctor", "--json", cwd=tmp_path, **environment)
    assert fine.returncode == 0, fine.stdout + fine.stderr
    answer = json.loads(fine.stdout)
    assert answer["fine"] is True
    assert {one["state"] for one in answer["findings"]} == {"ok", "note"}
    redis.config_set("maxmemory", 0)
    try:
        bad = gamma_here("doctor", cwd=tmp_path, COLUMNS="20", **environment)
    finally:
        with contextlib.suppress(RedisError):
            redis.config_set("maxmemory", 2**26)
    assert bad.returncode == 1
    lines = bad.stdout.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("wrong memory"))
    assert "→ `redis-cli CONFIG SET maxmemory" in lines[at + 1]


def test_a_bucket(bucket: Bucket) -> None:
    settings = Settings(store=bucket.url, retention=2 * 86_400)

    def rule(prefix: str, days: int) -> None:
        rule = {"ID": "ours", "Status": "Enabled", "Filter": {"Prefix": prefix}}
        bucket.s3.put_bucket_lifecycle_configuration(
            Bucket=bucket.name,
            LifecycleConfiguration={"Rules": [{**rule, "Expiration": {"Days": days}}]},
        )

    assert storage.bucket(Settings()) == []
    assert "after 2 day(s)" in found(storage.bucket(settings), "bucket", State.WRONG)
    rule("others/", 2)
    assert "no lifecycle rule" in found(storage.bucket(settings), "bucket", State.WRONG)
    rule("gamma/", 1)
    assert "before the retention time" in found(storage.bucket(settings), "bucket", State.WRONG)
    rule("", 2)
    assert bucket.url in found(storage.bucket(settings), "bucket", State.OK)
    assert bucket.objects() == []
    bucket.s3.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    assert "old versions" in found(storage.bucket(settings), "bucket", State.WRONG)
    nowhere = Settings(store="s3://there-is-no-such-bucket")
    assert "s3:PutObject" in found(storage.bucket(nowhere), "bucket", State.WRONG)
    bucket.server.link.cut()
    assert "AWS_ENDPOINT_URL" in found(storage.bucket(settings), "bucket", State.WRONG)
