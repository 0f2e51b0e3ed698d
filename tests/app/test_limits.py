"""Rate limits: shared by replicas, separate for each caller, with header fields."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import pytest
from redis import Redis

from app.contract.directory import Directory
from app.contract.limits import Quota, RateLimit, rate_key
from app.contract.settings import Settings
from app.http.admission import AdmissionControl
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import encode, photo, value

ALICE, BOB = "alice-secret-0123456789", "bob-secret-9876543210"
PICTURE = encode(photo(16, 16), "PNG")
DAILY = 5  # so slow to fill that no test sees it
EMPTY = 10**16  # µs: full again in three hundred years


# -- parsing and quotas ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit", "spacing"),
    [
        ("600/minute", RateLimit(600, 60), 100_000),
        ("1/day", RateLimit(1, 86_400), 86_400_000_000),
        ("7/minute", RateLimit(7, 60), 8_571_428),
        ("999999/second", RateLimit(999_999, 1), 1),
    ],
)
def test_limit_is_parsed_and_formatted(text: str, limit: RateLimit, spacing: int) -> None:
    assert RateLimit.parse(text) == limit
    assert limit.spacing == spacing
    assert str(limit) == text


@pytest.mark.parametrize(
    "text", ["", "600", "0/minute", "-1/minute", "6e2/minute", "1/week", "1000000/day"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="600/minute"):
        RateLimit.parse(text)


def test_quota_has_retry_after() -> None:
    limit = RateLimit(60, 60)
    assert Quota(limit, 59, 1_000_000).headers() == {
        "RateLimit-Policy": '"uploads";q=60;w=60',
        "RateLimit": '"uploads";r=59;t=1',
    }
    assert Quota(limit, 59, 1_000_000).retry_after == 0
    assert Quota(limit, 0, 60_000_000).retry_after == 1
    assert Quota(limit, 0, 59_000_001).retry_after == 1
    assert Quota(RateLimit(1, 86_400), 0, 86_399_999_999).retry_after == 86_400


# -- in Redis -------------------------------------------------------------------------------------


def admission(redis: Redis, rate_limit: str, **settings: object) -> AdmissionControl:
    keys = f"alice={ALICE},bob={BOB}"
    given = Settings(rate_limit=rate_limit, api_keys=keys, **settings)
    return AdmissionControl(given, redis, Directory(given))


def test_admits_as_many_as_the_quota_allows(redis: Redis) -> None:
    daily = admission(redis, f"{DAILY}/day")
    first = daily.admit("alice", 3)
    assert (first.taken, first.refusal) == (3, None)
    second = daily.admit("alice", 3)
    assert second.taken == 2
    assert second.refusal is not None
    assert second.refusal.code == "rate_limited"
    assert second.headers["RateLimit"].startswith('"uploads";r=0;t=')
    assert daily.admit("alice").taken == 0
    assert daily.admit("bob").taken == 1
    assert 0 < redis.pttl(rate_key("alice", RateLimit(DAILY, 86_400))) <= 86_400_000


def test_bucket_is_refilled(redis: Redis) -> None:
    quick = admission(redis, "2/second")
    assert quick.admit("alice", 2).taken == 2
    deadline = time.monotonic() + 60
    while quick.admit("alice").taken == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while redis.exists(rate_key("alice", RateLimit(2, 1))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert quick.admit("alice", 3).taken == 2, "an idle bucket holds no more than its limit"


def test_pictures_refused_by_the_queue_do_not_count(redis: Redis) -> None:
    redis.rpush("rq:queue:gamma", "a", "b")
    small = admission(redis, f"{DAILY}/day", queue_limit=4)
    first = small.admit("alice", 4)
    assert first.taken == 1  # of two places one stays free for others
    assert first.refusal is not None
    assert first.refusal.code == "queue_share_full"
    redis.rpush("rq:queue:gamma", "c", "d")
    second = small.admit("alice", 4)
    assert second.taken == 0
    assert second.headers["RateLimit"].startswith(f'"uploads";r={DAILY - 1};')


def test_changed_limit_starts_with_a_full_bucket(redis: Redis) -> None:
    assert admission(redis, "1/day").admit("alice", 2).taken == 1
    assert admission(redis, "2/day").admit("alice", 3).taken == 2
    assert admission(redis, "1/day").admit("alice").taken == 0


def test_one_round_trip_per_upload(redis: Redis) -> None:
    daily = admission(redis, "1000/day")
    daily.admit("alice")  # looks at memory and waiting time, and loads the script
    sent = []
    (pooled,) = redis.connection_pool._available_connections
    send = pooled.send_packed_command
    pooled.send_packed_command = lambda *args, **kwargs: (sent.append(args), send(*args, **kwargs))
    for _ in range(20):
        daily.admit("alice")
    looks = sum(b"INFO" in b"".join(args[0]) for args in sent)
    assert len(sent) == 20 + looks
    assert looks < 20


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Replica, Replica]]:
    environment = {
        "GAMMA_API_KEYS": f"alice={ALICE},bob={BOB}",
        "GAMMA_RATE_LIMIT": f"{DAILY}/day",
    }
    folder = tmp_path_factory.mktemp("limits")
    with replicas(redis_url, folder, 2, **environment) as (first, second):
        yield first, second


def post(replica: Replica, key: str) -> httpx2.Response:
    with replica.client(key) as client:
        return client.post("/v1/detections", files={"file": PICTURE})


def test_two_replicas_share_one_limit(redis: Redis, two: tuple[Replica, Replica]) -> None:
    answers = [post(two[number % 2], ALICE) for number in range(DAILY)]
    assert [answer.status_code for answer in answers] == [202] * DAILY
    left = [answer.headers["ratelimit"].split(";")[1] for answer in answers]
    assert left == [f"r={DAILY - 1 - number}" for number in range(DAILY)]
    assert answers[0].headers["ratelimit-policy"] == f'"uploads";q={DAILY};w=86400'
    for replica in two:
        counter = 'gamma_http_rejections_total{reason="rate_limited"}'
        before = value(replica.metrics(), counter)
        refused = post(replica, ALICE)
        assert_problem(refused, 429, "rate_limited")
        assert refused.headers["ratelimit"].startswith('"uploads";r=0;t=')
        assert 86_400 // DAILY - 60 < int(refused.headers["retry-after"]) <= 86_400 // DAILY
        assert value(replica.metrics(), counter) == before + 1
        assert post(replica, BOB).status_code == 202, "the limit is each caller's own"


def test_a_refusal_needs_no_body(redis: Redis, two: tuple[Replica, Replica]) -> None:
    redis.set(rate_key("alice", RateLimit(DAILY, 86_400)), EMPTY)
    status, fields = two[0].raw(
        "POST /v1/detections HTTP/1.1",
        "Content-Length: 9999999",
        "Content-Type: multipart/form-data; boundary=b",
        f"Authorization: Bearer {ALICE}",
    )
    assert status == 429
    assert fields["x-request-id"]


def test_refused_file_counts_and_reports_the_quota(
    redis: Redis, two: tuple[Replica, Replica]
) -> None:
    with two[0].client(ALICE) as client:
        answer = client.post("/v1/detections", files={"file": b"no picture"})
    assert_problem(answer, 415, "not_an_image")
    assert answer.headers["ratelimit"].startswith(f'"uploads";r={DAILY - 1};')


def test_reads_do_not_count(redis: Redis, two: tuple[Replica, Replica]) -> None:
    redis.set(rate_key("alice", RateLimit(DAILY, 86_400)), EMPTY)
    with two[0].client(ALICE) as client:
        answer = client.get("/v1/detections/none")
    assert_problem(answer, 404, "not_found")
    assert "ratelimit" not in answer.headers


def test_every_file_of_a_batch_counts(redis: Redis, two: tuple[Replica, Replica]) -> None:
    files = [("files", (f"{number}.png", PICTURE)) for number in range(DAILY + 2)]
    with two[0].client(ALICE) as client:
        answer = client.post("/v1/detections/batch", files=files)
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [202] * DAILY + [429] * 2
    assert results[-1]["problem"]["code"] == "rate_limited"
    assert answer.headers["ratelimit"].startswith('"uploads";r=0;')
    assert_problem(post(two[1], ALICE), 429, "rate_limited")
