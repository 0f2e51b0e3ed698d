"""No log contains keys, passwords or secrets, whatever goes wrong."""

from __future__ import annotations

import base64
import contextlib
import resource
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from app.command.embedded import private_redis
from app.contract import records
from app.contract.jobs import JobQueue
from app.contract.settings import Settings
from tests.app.receiver import Receiver, wait_for
from tests.conftest import Serve, encode, photo

_KINDS = """
import asyncio, gc, logging, sys, threading, traceback, warnings
import structlog
from app.command import logs
from app.http.problems import of_unexpected
from app.contract.settings import Settings

logs.configure(Settings(log_format=sys.argv[1], log_level="debug"))
log, library = structlog.get_logger(), logging.getLogger("library")


def fail(kind):
    headers = {"Authorization": "Bearer " + sys.argv[2]}
    try:
        raise KeyError("cause of " + kind) if len(headers) else None
    except KeyError as error:
        raise RuntimeError(kind) from error


def caught(kind):
    key = sys.argv[2]
    try:
        fail(kind)
    except RuntimeError as error:
        return error


of_unexpected(caught("of a request"))
log.error("event", exc_info=caught("of structlog"))
library.error("event", exc_info=caught("of logging"))
log.error("event", exc_info=ExceptionGroup("a group", [caught("of a group")]))
try:
    fail("while it is handled")
except RuntimeError:
    log.exception("event")
    library.exception("event")
    logging.exception("event")
thread = threading.Thread(target=fail, args=["of a thread"])
thread.start()
thread.join()


class Unraisable:
    def __del__(self):
        fail("of a finalizer")


Unraisable()


async def main():
    async def task(): fail("of a task")
    forgotten = asyncio.create_task(task())
    await asyncio.sleep(0)
    del forgotten
    gc.collect()
    asyncio.get_running_loop().call_soon(fail, "of a callback")
    await asyncio.sleep(0.01)


asyncio.run(main())
warnings.warn("a warning")
fail("of the process")
"""
_SEEN = [
    "of a request",
    "of structlog",
    "of logging",
    "of a group",
    "while it is handled",
    "of a thread",
    "of a finalizer",
    "of a task",
    "of a callback",
    "a warning",
    "of the process",
]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_errors_show_no_local_variables(log_format: str) -> None:
    canary = secrets.token_urlsafe(24)
    done = subprocess.run(
        [sys.executable, "-c", _KINDS, log_format, canary],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    for kind in _SEEN:
        assert kind in done.stderr, done.stderr
    assert canary not in done.stderr


class Canaries:
    """What no log may hold, by what it is."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(24)
        self.wrong_key = secrets.token_urlsafe(24)
        self.password = secrets.token_hex(16)
        self.signing = base64.b64encode(secrets.token_bytes(24)).decode()
        self.webhook_token = secrets.token_urlsafe(24)
        self.picture = secrets.token_urlsafe(24)

    def found_in(self, text: str) -> list[str]:
        return [name for name, canary in vars(self).items() if canary in text]


@pytest.fixture(params=["console", "json"])
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, small_model: Path
) -> Iterator[tuple[Serve, Redis, Canaries]]:
    canaries = Canaries()
    with private_redis(tmp_path / "redis", 2**28) as (url, _), Redis.from_url(url) as redis:
        redis.config_set("requirepass", canaries.password)
        redis.auth(canaries.password)
        (tmp_path / "uploads").mkdir()
        running = Serve(
            tmp_path / "data",
            GAMMA_CHECKPOINT=str(small_model),
            GAMMA_REDIS_URL=url.replace("unix://", f"unix://:{canaries.password}@"),
            GAMMA_API_KEYS=f"alice={canaries.key}",
            GAMMA_WEBHOOK_SECRETS=f"whsec_{canaries.signing}",
            GAMMA_WEBHOOK_ALLOW="127.0.0.1",
            GAMMA_LOG_FORMAT=request.param,
            GAMMA_LOG_LEVEL="debug",
        )
        try:
            yield running.wait_until_ready(), redis, canaries
        finally:
            running.stop()


def raw(service: Serve, request: bytes) -> None:
    """Send bytes, and hang up after the answer, or after none."""
    port = int(service.url.rsplit(":", 1)[1])
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
    ):
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)


def test_no_log_contains_a_secret(stack: tuple[Serve, Redis, Canaries]) -> None:
    service, redis, canaries = stack
    bearer = {"Authorization": f"Bearer {canaries.key}"}
    picture = encode(photo(64, 64), comment=canaries.picture.encode())
    with Receiver() as receiver, service.client() as client:
        client.headers["Connection"] = "close"  # as the server does after an error of its own
        hook = {"webhook_url": f"{receiver.url}/hook?token={canaries.webhook_token}"}
        record = refusals(client, bearer, canaries, picture, hook)
        heads(service, canaries)
        own_errors(service, redis, client, bearer, picture, record)
        # Redis refuses the password; then it is as before, and the service ends in order.
        redis.config_set("requirepass", "another")
        for kind in ("normal", "pubsub"):
            redis.client_kill_filter(_type=kind, skipme=True)
        for path in ("/v1/detections", f"/v1/detections/{record['id']}", "/readyz"):
            assert client.get(path, headers=bearer).status_code == 503
        upload = client.post("/v1/detections", files={"file": picture}, headers=bearer)
        assert upload.status_code == 503
        redis.config_set("requirepass", canaries.password)
    wait_for(lambda: "redis_unavailable" in service.log)
    service.stop()
    assert "unexpected_error" in service.log
    assert "Traceback" in service.log
    assert canaries.found_in(service.log) == []
    assert "alice" in service.log  # so the keys were used


def refusals(
    client: httpx2.Client,
    bearer: dict[str, str],
    canaries: Canaries,
    picture: bytes,
    hook: dict[str, str],
) -> dict:
    """Requests that are answered as they should be."""
    wrong = {"Authorization": f"Bearer {canaries.wrong_key}"}
    assert client.get("/v1/detections").status_code == 401
    assert client.get("/v1/detections", headers=wrong).status_code == 403
    assert client.get(f"/v1/detections?key={canaries.key}").status_code == 400
    assert client.get(f"/{canaries.key}").status_code == 404
    assert client.put("/v1/detections", headers=bearer).status_code == 405
    for content in (b"", b"no picture", picture[: len(picture) // 2], picture + picture):
        client.post("/v1/detections", files={"file": content}, headers=bearer)
    client.post("/v1/detections", content=b"--x", headers={**bearer, "Content-Type": "x"})
    form = "multipart/form-data; boundary=x"
    body = b"--x\r\nbroken" + canaries.picture.encode()
    client.post("/v1/detections", content=body, headers={**bearer, "Content-Type": form})
    for url in (hook["webhook_url"].replace("http", "ftp"), "http://[::1", hook["webhook_url"]):
        answer = client.post(
            "/v1/detections",
            files={"file": picture},
            data={"webhook_url": url},
            headers={**bearer, "Prefer": "wait=60"},
        )
    assert answer.status_code == 200, answer.text
    return answer.json()


def heads(service: Serve, canaries: Canaries) -> None:
    """Requests that are none, and connections that end too early."""
    field = f"Authorization: Bearer {canaries.key}\r\n".encode()
    for request in (
        field,
        b"GET / HTTP/9.9\r\n" + field + b"\r\n",
        b"GET / HTTP/1.1\r\n" + field + b"\0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + field + b"x: " + b"y" * 2**17,
        b"POST /v1/detections HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        + field
        + b"\r\nzz\r\n",
        b"POST /v1/detections HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n" + field + b"\r\n--x\r\n",
        b"GET /v1/detections HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        + field
        + b"\r\n",
    ):
        raw(service, request)


def own_errors(
    service: Serve,
    redis: Redis,
    client: httpx2.Client,
    bearer: dict[str, str],
    picture: bytes,
    record: dict,
) -> None:
    """What nobody expects, in each of the three programs."""
    # The API: what lies in Redis is of another type; the disk takes no more.
    index = records.index_key("alice")
    redis.rename(index, "index")
    redis.set(index, b"")
    upload = {"files": {"file": picture}, "headers": bearer}
    assert client.get("/v1/detections", headers=bearer).status_code == 500
    assert client.post("/v1/detections", **upload).status_code == 500
    redis.rename("index", index)
    api = service.child("api").pid
    before = resource.prlimit(api, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
    large = {"files": {"file": picture + bytes(3 * 2**20)}, "headers": bearer}
    assert client.post("/v1/detections", **large).status_code >= 500
    resource.prlimit(api, resource.RLIMIT_FSIZE, before)

    # Webhooks and worker: records that cannot be read.
    broken = records.key(record["id"])
    redis.hset(broken, "record", b"{")
    redis.rpush("rq:queue:gamma-webhooks", f"msg_{record['id']}")
    assert client.get(f"/v1/detections/{record['id']}", headers=bearer).status_code == 500
    deadline = (datetime.now(UTC) + timedelta(hours=1)).timestamp()
    poison = "0" * 32
    redis.hset(
        records.key(poison), mapping={"status": "queued", "record": "{", "deadline": deadline}
    )
    with redis.pipeline() as pipeline:
        JobQueue(redis, Settings()).enqueue(pipeline, poison)
        pipeline.execute()
    wait_for(lambda: redis.llen("rq:queue:gamma") == redis.llen("rq:queue:gamma-webhooks") == 0)
    time.sleep(1)  # s; for the lines about it
