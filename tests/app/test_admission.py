"""Admission control before the body is read, and request ids in all responses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from app.command.embedded import private_redis
from app.contract.directory import Directory
from app.contract.jobs import ask_backlog, read_backlog
from app.contract.settings import Settings
from app.http.admission import AdmissionControl
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import encode, photo, value

PICTURE = encode(photo(16, 16), "PNG")
QUEUE, QUEUE_LIMIT = "rq:queue:gamma", 3
AGE_LIMIT = 100  # s
POST = "POST /v1/detections HTTP/1.1"
FORM = "Content-Type: multipart/form-data; boundary=b"
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
    + PICTURE
    + b"\r\n--b--\r\n"
)


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    limits = {"GAMMA_QUEUE_LIMIT": str(QUEUE_LIMIT), "GAMMA_QUEUE_AGE_LIMIT": str(AGE_LIMIT)}
    with replicas(redis_url, tmp_path_factory.mktemp("admission"), 1, **limits) as (one,):
        yield one


def post(api: Replica) -> httpx2.Response:
    with api.client() as client:
        return client.post("/v1/detections", files={"file": PICTURE})


def wait_for(api: Replica, code: str) -> httpx2.Response:
    """The first refusal of that code; memory and waiting time are not looked at each time.

    What asks has no body: it ends as `file_missing` if it is admitted, and leaves nothing behind.
    """
    deadline = time.monotonic() + 60
    with api.client() as client:
        while (answer := client.post("/v1/detections")).json()["code"] != code:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
    return answer


def queue_a_job(redis: Redis, name: str, age: float) -> None:
    """A job that was enqueued `age` seconds ago, as RQ writes it."""
    enqueued = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - age))
    redis.hset(f"rq:job:{name}", "enqueued_at", enqueued)
    redis.rpush(QUEUE, name)
    for waiting in ("gamma:waiting", "gamma:waiting:anonymous"):
        redis.zadd(waiting, {name: time.time() - age})


# -- limits ---------------------------------------------------------------------------------------


def test_a_full_queue(redis: Redis, api: Replica) -> None:
    wait_for(api, "file_missing")
    counter = 'gamma_http_rejections_total{reason="queue_full"}'
    before = value(api.metrics(), counter)
    assert [post(api).status_code for _ in range(QUEUE_LIMIT)] == [202] * QUEUE_LIMIT
    refused = post(api)
    detail = assert_problem(refused, 503, "queue_full")["detail"]
    assert f"{QUEUE_LIMIT} detections are waiting" in detail
    assert 1 <= int(refused.headers["retry-after"]) <= 300
    assert value(api.metrics(), counter) == before + 1
    redis.lpop(QUEUE)
    assert post(api).status_code == 202
    assert api.raw(POST, "Content-Length: 9999999", FORM)[0] == 503, "it waits for the body"


def test_retry_after_grows_with_the_queue_age(redis: Redis) -> None:
    gates = []
    for age in (5, 500, 50_000):
        redis.flushall()
        queue_a_job(redis, "a", age)
        settings = Settings(queue_limit=1, queue_age_limit=10**6, queue_ttl=10**6)
        refusal = AdmissionControl(settings, redis, Directory(settings)).admit("alice").refusal
        assert refusal is not None
        assert refusal.code == "queue_full"
        gates.append(refusal.retry_after)
    assert gates[0] == 1
    assert 50 <= gates[1] <= 60
    assert gates[2] == 300


def test_a_slow_queue(redis: Redis, api: Replica) -> None:
    queue_a_job(redis, "a", AGE_LIMIT + 40)
    refused = wait_for(api, "queue_slow")
    document = assert_problem(refused, 503, "queue_slow")
    assert "has waited 14" in document["detail"]
    assert 40 <= int(refused.headers["retry-after"]) <= 100
    assert api.raw(POST, "Content-Length: 9999999", FORM)[0] == 503, "it waits for the body"
    redis.flushall()
    queue_a_job(redis, "a", AGE_LIMIT - 60)
    wait_for(api, "file_missing")


def test_full_storage(redis: Redis, api: Replica) -> None:
    wait_for(api, "file_missing")
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] / 0.95))
    refused = wait_for(api, "storage_full")
    assert "memory" in assert_problem(refused, 503, "storage_full")["detail"]
    assert refused.headers["retry-after"] == "10"
    with api.client() as client:
        assert client.get("/v1/detections/none").status_code == 404, "reading goes on"
    redis.config_set("maxmemory", 0)  # no limit
    wait_for(api, "file_missing")


def test_redis_unavailable(tmp_path: Path) -> None:
    with (
        private_redis(tmp_path / "redis", 2**26) as (url, server),
        replicas(url, tmp_path, 1) as (api,),
    ):
        assert post(api).status_code == 202
        server.process.kill()
        server.process.wait()
        refused = post(api)
        assert_problem(refused, 503, "redis_unavailable")
        assert refused.headers["retry-after"] == "5"
        assert api.lines_of(refused.headers["x-request-id"])


@pytest.mark.parametrize("waiting", [1, 2, 3, 50])
def test_expired_jobs_do_not_hide_the_queue_age(redis: Redis, waiting: int) -> None:
    for gone in range(waiting):
        redis.flushall()
        for number in range(gone):
            redis.rpush(QUEUE, f"gone-{number}")
        for number in range(waiting - gone):
            queue_a_job(redis, f"there-{number}", 1000 - number)
        with redis.pipeline() as pipeline:
            ask_backlog(pipeline, "gamma")
            backlog = read_backlog(*pipeline.execute())
        assert backlog.depth == waiting
        assert backlog.oldest_age == pytest.approx(1000, abs=30)


# -- request ids ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET /nowhere HTTP/1.1"], 404),
        (["PUT /v1/detections HTTP/1.1"], 405),
        ([POST, "Content-Length: 0"], 400),
        ([POST, FORM, "Content-Length: 999999999999"], 413),
        (["GET /v1/detections/none HTTP/1.1"], 404),
        (["GET /static/none HTTP/1.1"], 404),
        (["GET /v1/detections/none/masks/other.png HTTP/1.1"], 400),
        (["GET /v1/model HTTP/1.1"], 503),
    ],
)
def test_every_refusal_has_the_request_id(
    redis: Redis, api: Replica, lines: list[str], status: int
) -> None:
    wanted = f"mine-{time.monotonic_ns()}"
    answered, fields = api.raw(*lines, f"X-Request-ID: {wanted}")
    assert answered == status
    assert fields["x-request-id"] == wanted
    assert fields["content-type"] == "application/problem+json"
    (line,) = api.lines_of(wanted)
    assert line["status"] == status
    assert line["code"]


def test_unexpected_error_has_an_id_in_response_and_log(redis: Redis, api: Replica) -> None:
    redis.set("gamma:detection:broken", "not a hash")
    with api.client() as client:
        answer = client.get("/v1/detections/broken")
    document = assert_problem(answer, 500, "internal_error")
    assert "WRONGTYPE" not in str(document), "what broke is for the log alone"
    lines = api.lines_of(answer.headers["x-request-id"])
    assert any("WRONGTYPE" in str(line) for line in lines)


# -- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [f"Content-Length: {len(BODY)}", "Content-Length: 5"],
        ["Content-Length: -1"],
        ["Content-Length: 1e3"],
        ["Content-Length: 99999999999999999999999"],
        [f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, identity"],
    ],
)
def test_ambiguous_content_length_is_refused(redis: Redis, api: Replica, lines: list[str]) -> None:
    status, _ = api.raw(POST, FORM, *lines, body=BODY)
    assert status == 400
    assert redis.llen(QUEUE) == 0
    assert post(api).status_code == 202


def test_a_chunked_body_is_read(redis: Redis, api: Replica) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY)))
    status, fields = api.raw(POST, FORM, "Transfer-Encoding: chunked", body=chunks + b"0\r\n\r\n")
    assert status == 202
    assert fields["location"].startswith("/v1/detections/")


def test_truncated_body_is_refused(redis: Redis, api: Replica) -> None:
    body = BODY[:-20]
    status, _ = api.raw(POST, FORM, f"Content-Length: {len(body)}", body=body)
    assert status == 400
    assert redis.llen(QUEUE) == 0


def test_disconnect_during_upload_leaves_nothing(redis: Redis, api: Replica) -> None:
    request = f"{POST}\r\nHost: localhost\r\n{FORM}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    api.hang_up_after(request + BODY[:100])
    assert post(api).status_code == 202
    assert redis.llen(QUEUE) == 1


def test_memory_and_backlog_are_read_once_a_second(redis: Redis) -> None:
    def calls() -> int:
        return int(redis.info("commandstats")["cmdstat_info"]["calls"])

    settings = Settings()
    control = AdmissionControl(settings, redis, Directory(settings))
    redis.info()
    before, started = calls(), time.monotonic()
    for _ in range(200):
        control.admit("alice")
    looks = calls() - before - 1
    assert 1 <= looks <= 1 + (time.monotonic() - started)


def test_queue_timeout_is_reported_by_all_routes(redis: Redis, redis_url: str, tmp_path) -> None:
    with replicas(redis_url, tmp_path, 1, GAMMA_QUEUE_TTL="1") as (api,), api.client() as client:
        answer = client.post(
            "/v1/detections", files={"file": PICTURE}, headers={"Prefer": "wait=20"}
        )
        path = assert_problem(answer, 410, "queue_timeout")["detection"]
        assert client.get(path).json()["error"]["code"] == "queue_timeout"
        for part in ("masks/ai.png", "overlays/manipulation.png"):
            assert_problem(client.get(f"{path}/{part}"), 410, "queue_timeout")
        assert client.get(f"{path}/image").content == PICTURE
