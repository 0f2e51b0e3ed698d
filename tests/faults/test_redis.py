"""Redis goes away and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from app.command.embedded import private_redis
from tests.faults.house import GOOD, House, opened

pytestmark = pytest.mark.timeout(900)

_UNREACHABLE = 21  # s; longer than the worker waits for one answer, so it asks again


def test_redis_is_stopped_and_started_with_500_jobs_queued(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with private_redis(tmp_path / "data", 2**28) as (url, _):
            house = stack.enter_context(opened(url, tmp_path))
            names = house.submit(*[GOOD] * 500)
            orders = house.worker(sleep={"forward": 0.05})
            house.wait(lambda: len(house.finished) > 50)
        time.sleep(2)
        with private_redis(tmp_path / "data", 2**28):
            house.wait_until_final(names)
            house.wait(lambda: house.started() == 0)
            assert house.count(orders) == 500
            assert house.results(names) == {1: 500}
            assert house.end(orders) == 0
            print(f"\nRedis restarted: {dict(house.statuses(names))}")
            assert house.statuses(names) == {"succeeded": 500}
            house.nothing_is_left()
            stack.pop_all().close()


def test_redis_is_full_for_a_while(house: House) -> None:
    names = house.submit(*[GOOD] * 100)
    orders = house.worker(sleep={"forward": 0.05})
    house.wait(lambda: len(house.finished) > 20)
    house.redis.config_set("maxmemory", 1)
    try:
        house.wait(lambda: "redis_takes_no_writes" in house.log())
        done = house.statuses(names)["succeeded"]
        assert done < 100
        assert house.process(orders).is_alive()
    finally:
        house.redis.config_set("maxmemory", 2**28)
    house.wait_until_final(names)
    house.wait(lambda: house.started() == 0)
    assert house.tries_left(names) == {2}
    assert house.count(orders) == 100
    assert house.count(orders, "failed") == 0
    assert house.results(names) == {1: 100}
    assert house.end(orders) == 0
    house.account(f"Redis was full after {done}", names, succeeded=100)


def test_redis_is_unreachable_in_the_midst_of_batches(tmp_path: Path) -> None:
    with private_redis(tmp_path / "data", 2**28) as (url, redis), opened(url, tmp_path) as house:
        names = house.submit(*[GOOD] * 200)
        orders = house.worker(sleep={"forward": 0.1})
        house.wait(lambda: len(house.finished) > 50)
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            time.sleep(_UNREACHABLE)
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        house.wait_until_final(names)
        house.wait(lambda: house.started() == 0)
        assert house.count(orders) == 200
        assert house.results(names) == {1: 200}
        assert house.end(orders) == 0
        house.account("Redis hung for 21 s", names, succeeded=200)
