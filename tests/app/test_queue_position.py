"""Place of a detection in the queue, and the estimate of its wait."""

from __future__ import annotations

import time

import httpx2
import pytest
from redis import Redis

from app.contract.jobs import RESULT_TTL, places
from app.contract.settings import Settings
from tests.app.conftest import StandIn, post

QUEUE, FINISHED = "rq:queue:gamma", "rq:finished:gamma"


@pytest.fixture(autouse=True)
def only_our_jobs(standin: StandIn) -> None:
    standin.redis.delete(QUEUE, FINISHED)


def place_of(client: httpx2.Client, name: str) -> int | None:
    return client.get(f"/v1/detections/{name}").json()["queue_position"]


def fill(redis: Redis, names: list[str], turns: list[int]) -> None:
    redis.rpush(QUEUE, *names)
    for name, turn in zip(names, turns, strict=True):
        redis.hset(f"rq:job:{name}", mapping={"turn": turn, "status": "queued"})


def test_waiting_detections_move_forward(alice: httpx2.Client, standin: StandIn) -> None:
    names = [post(alice).json()["id"] for _ in range(3)]
    assert [place_of(alice, name) for name in names] == [1, 2, 3]
    listed = alice.get("/v1/detections?limit=3").json()["detections"]
    assert [record["queue_position"] for record in listed] == [3, 2, 1]
    named = alice.get("/v1/detections", params={"ids": ",".join(names[:2])}).json()
    assert [record["queue_position"] for record in named["detections"]] == [1, 2]
    standin.finish(names[0])
    assert [place_of(alice, name) for name in names] == [None, 1, 2]
    standin.take(names[1])
    assert [place_of(alice, name) for name in names] == [None, None, 1]


def test_each_place_in_a_queue_with_equal_turns_and_a_retried_job(redis: Redis) -> None:
    names = [f"id-{number}" for number in range(1, 301)]
    fill(redis, names, turns=[number // 3 for number in range(300)])
    fill(redis, ["retried"], turns=[0])  # at the end
    wanted = [*names, "retried", "elsewhere"]
    found = places(redis, Settings(), dict.fromkeys(wanted, time.time()))
    expected = {name: number for number, name in enumerate([*names, "retried"], start=1)}
    assert {name: place.position for name, place in found.items()} == expected


def test_callers_in_turn(alice: httpx2.Client, bob: httpx2.Client) -> None:
    first, second, third = (post(alice).json()["id"] for _ in range(3))
    other = post(bob).json()["id"]
    assert [place_of(alice, name) for name in (first, second, third)] == [1, 3, 4]
    assert place_of(bob, other) == 2


def test_the_wait_follows_from_the_rate_since_the_arrival(redis: Redis) -> None:
    now = time.time()
    fill(redis, [f"id-{number}" for number in range(1, 101)], turns=list(range(100)))
    ended = [now - 20 + number for number in range(10)]  # none in the last 10 s
    redis.zadd(FINISHED, {f"done-{end}": int(end) + RESULT_TTL for end in ended})
    arrivals = {"id-1": now - 25, "id-100": now - 600, "id-50": now - 5}
    found = places(redis, Settings(), arrivals)
    assert found["id-1"].wait == pytest.approx(1 * 25 / 10, abs=1)
    assert found["id-100"].wait == pytest.approx(100 * 30 / 10, abs=10)
    assert found["id-50"].wait is None
