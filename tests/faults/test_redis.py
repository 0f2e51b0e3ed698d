"""Redis goes away and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from app.command.embedded import private_redis
from tests.faults.stack import GOOD, Stack, opened

pytestmark = pytest.mark.timeout(900)

_UNREACHABLE = 21  # s; longer than the worker waits for one answer, so it asks again


def test_redis_is_stopped_and_started_with_500_jobs_queued(tmp_path: Path) -> None:
    with contextlib.ExitStack() as contexts:
        with private_redis(tmp_path / "data", 2**28) as (url, _):
            stack = contexts.enter_context(opened(url, tmp_path))
            names = stack.submit(*[GOOD] * 500)
            orders = stack.worker(sleep={"forward": 0.05})
            stack.wait(lambda: len(stack.finished) > 50)
        time.sleep(2)
        with private_redis(tmp_path / "data", 2**28):
            stack.wait_until_final(names)
            stack.wait(lambda: stack.started() == 0)
            assert stack.count(orders) == 500
            assert stack.results(names) == {1: 500}
            assert stack.end(orders) == 0
            print(f"\nRedis restarted: {dict(stack.statuses(names))}")
            assert stack.statuses(names) == {"succeeded": 500}
            stack.nothing_is_left()
            contexts.pop_all().close()


def test_redis_is_full_for_a_while(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 100)
    orders = stack.worker(sleep={"forward": 0.05})
    stack.wait(lambda: len(stack.finished) > 20)
    stack.redis.config_set("maxmemory", 1)
    try:
        stack.wait(lambda: "redis_takes_no_writes" in stack.log())
        done = stack.statuses(names)["succeeded"]
        assert done < 100
        assert stack.process(orders).is_alive()
    finally:
        stack.redis.config_set("maxmemory", 2**28)
    stack.wait_until_final(names)
    stack.wait(lambda: stack.started() == 0)
    assert stack.tries_left(names) == {2}
    assert stack.count(orders) == 100
    assert stack.count(orders, "failed") == 0
    assert stack.results(names) == {1: 100}
    assert stack.end(orders) == 0
    stack.account(f"Redis was full after {done}", names, succeeded=100)


def test_redis_is_unreachable_in_the_midst_of_batches(tmp_path: Path) -> None:
    with private_redis(tmp_path / "data", 2**28) as (url, redis), opened(url, tmp_path) as stack:
        names = stack.submit(*[GOOD] * 200)
        orders = stack.worker(sleep={"forward": 0.1})
        stack.wait(lambda: len(stack.finished) > 50)
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            time.sleep(_UNREACHABLE)
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        stack.wait_until_final(names)
        stack.wait(lambda: stack.started() == 0)
        assert stack.count(orders) == 200
        assert stack.results(names) == {1: 200}
        assert stack.end(orders) == 0
        stack.account("Redis hung for 21 s", names, succeeded=200)
