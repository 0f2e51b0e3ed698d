"""Concurrent uploads, the contents of Redis, and RQ's tools."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from redis import Redis
from rq.suspension import resume, suspend

from tests.app.conftest import wait_for
from tests.conftest import Serve, encode, photo, value, wait_until_final

PICTURES = 50


@pytest.fixture(scope="module")
def service(shipped_service: Serve) -> Serve:
    """Slow enough for pictures to meet."""
    return shipped_service


def test_fifty_at_once_are_all_answered_in_shared_batches(service: Serve) -> None:
    before = service.metrics(1)
    pictures = [encode(photo(200, 160, seed), quality=85) for seed in range(PICTURES)]

    def post(data: bytes) -> httpx2.Response:
        with service.client() as client:
            return client.post(
                "/v1/detections",
                files={"file": data},
                data={"view": "center"},
                headers={"Prefer": "wait=60"},
            )

    with (
        Redis.from_url(f"unix://{service.data_dir / 'redis.sock'}") as redis,
        ThreadPoolExecutor(PICTURES) as pool,
    ):
        suspend(redis)  # so that they meet, however slow the API is
        try:
            answering = [pool.submit(post, data) for data in pictures]
            wait_for(lambda: redis.llen("rq:queue:gamma") == PICTURES)
        finally:
            resume(redis)
        answers = [answer.result() for answer in answering]
    assert {answer.status_code for answer in answers} <= {200, 202}  # 202: a slow machine
    with service.client() as client:
        records = [wait_until_final(client, answer.json()["id"]) for answer in answers]
    assert {record["status"] for record in records} == {"succeeded"}
    assert len({record["id"] for record in records}) == PICTURES
    assert len({record["image"]["sha256"] for record in records}) == PICTURES

    after = service.metrics(1)

    def delta(name: str) -> float:
        return value(after, name) - value(before, name)

    assert delta("gamma_batch_pictures_sum") == PICTURES
    assert delta("gamma_batch_pictures_count") < PICTURES, "no batch held two pictures"
    assert delta('gamma_batch_pictures_bucket{le="1.0"}') < PICTURES / 2


def test_redis_holds_no_pickle_and_no_picture_in_a_job(service: Serve) -> None:
    picture = encode(photo(300, 300, seed=99), quality=90)
    with service.client() as client:
        client.post(
            "/v1/detections", files={"file": picture}, headers={"Prefer": "wait=60"}
        ).raise_for_status()
    checked = 0
    with Redis.from_url(f"unix://{service.data_dir / 'redis.sock'}") as redis:
        for key in redis.scan_iter("rq:*"):
            kind = redis.type(key)
            if kind == b"hash":
                values = list(redis.hgetall(key).values())
            elif kind == b"list":
                values = redis.lrange(key, 0, -1)
            elif kind == b"stream":
                values = [item for _, fields in redis.xrange(key) for item in fields.values()]
            else:
                continue
            for found in values:
                checked += 1
                assert not found.startswith(b"\x80"), f"{key}: a pickle"
                assert picture[:64] not in found, f"{key}: a picture"
                assert len(found) < 1000, f"{key}: {len(found)} bytes in one field"
        assert checked > 10
        assert list(redis.scan_iter("gamma:image:*"))
        assert all(redis.pttl(key) > 0 for key in redis.scan_iter("gamma:*:*"))


def test_rq_info_shows_queue_and_worker(service: Serve) -> None:
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "rq.cli", "info"),
            *("--url", f"unix://{service.data_dir / 'redis.sock'}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "gamma" in answer.stdout
    assert "1 workers, 1 queues" in answer.stdout
