"""The order of the queue: callers take turns, in RQ's own list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker import SimpleWorker

from app.contract.schemas import View
from app.http.service import Order
from tests.app.conftest import new_picture
from tests.app.test_callers_file import BOB, OLD, key, table
from tests.app.test_shares import House
from tests.conftest import encode
from worker.jobs import take


def house_of(redis: Redis, url: str, folder: Path, **alices: str) -> House:
    file = folder / "callers.toml"
    file.write_text(table("alice", key(OLD), **alices) + table("bob", key(BOB)))
    return House(redis, url, file, cache=False)


@pytest.fixture
def house(redis: Redis, redis_url: str, tmp_path: Path) -> House:
    return house_of(redis, redis_url, tmp_path)


def owners(house: House) -> str:
    """Whose the waiting jobs are, in their order, by the first letter."""
    keys = [f"gamma:detection:{name}" for name in house.worker.queued()]
    return "".join(house.redis.hget(key, "owner").decode()[0] for key in keys)


def taken(house: House, most: int) -> str:
    """Whose jobs a worker takes."""
    queue = Queue("gamma", connection=house.redis, serializer=JSONSerializer)
    worker = SimpleWorker([queue], connection=house.redis, serializer=JSONSerializer)
    held, _ = take(worker, queue, most, f"{most}", idle=True)
    return "".join(
        house.service.store.redis.hget(f"gamma:detection:{job.id}", "owner").decode()[0]
        for job in held
    )


def test_a_newcomer_does_not_wait_behind_all_of_anothers(house: House) -> None:
    names = [house.submit("alice").id for _ in range(6)]
    assert house.worker.queued() == names
    for _ in range(3):
        house.submit("bob")
    assert owners(house) == "abababaaa"
    assert taken(house, 4) == "abab"
    house.submit("carol")
    assert owners(house) == "abcaaa"
    house.submit("bob")
    assert owners(house) == "abcabaa"
    assert [name for name in house.worker.queued() if name in names] == names[2:], "its own order"


def test_what_somebody_did_not_use_is_not_saved_up(house: House) -> None:
    for _ in range(4):
        house.submit("alice")
    assert taken(house, 3) == "aaa"
    for _ in range(3):
        house.submit("bob")
    house.submit("alice")
    assert owners(house) == "abbab"


def test_an_empty_queue_forgets(house: House) -> None:
    for _ in range(5):
        house.submit("alice")
    assert taken(house, 8) == "aaaaa"
    house.submit("alice")
    house.submit("bob")
    house.submit("alice")
    assert owners(house) == "aba"


def test_weights(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    house = house_of(redis, redis_url, tmp_path, weight="3")
    for _ in range(12):
        house.submit("alice")
        house.submit("bob")
    assert Counter(taken(house, 8)) == {"a": 6, "b": 2}


def test_a_large_picture_is_a_longer_turn(house: House) -> None:
    large = encode(Image.new("RGB", (2048, 1024)), "PNG")
    for number in range(3):
        house.submit("alice", large + bytes(number))
    for _ in range(9):
        house.submit("bob")
    assert owners(house) == "abbbbbbbbaba"
    house.service.submit(Order("carol", large, View.CENTER))
    house.service.submit(Order("carol", large + b" ", View.CENTER))
    assert owners(house) == "abcbcbbbbbbaba"


def test_what_comes_again_is_first(house: House) -> None:
    first, second = house.submit("alice"), house.submit("alice")
    house.redis.lrem("rq:queue:gamma", 1, first.id)
    house.redis.lpush("rq:queue:gamma", first.id)
    third, newcomer = house.submit("alice"), house.submit("bob", new_picture())
    queued = house.worker.queued()
    assert queued[0] == first.id
    assert queued.index(second.id) < queued.index(third.id)
    assert queued.index(newcomer.id) < 2


def test_scripts_that_redis_forgot_are_loaded_again(house: House) -> None:
    first = house.submit("alice")
    house.redis.script_flush()
    second = house.submit("bob")
    house.redis.script_flush()
    assert house.worker.finish(first.id)
    assert house.worker.queued() == [second.id]
