"""Restarts and outages of Redis, and Redis without memory."""

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

_COMMAND_TIMEOUT = 2.0  # s


def test_redis_restarts_with_jobs_queued(tmp_path: Path) -> None:
    with contextlib.ExitStack() as contexts:
        with private_redis(tmp_path / "data", 2**28) as (url, _):
            stack = contexts.enter_context(opened(url, tmp_path))
            names = stack.submit(*[GOOD] * 150)
            options = stack.worker(sleep={"forward": 0.05})
            stack.wait(lambda: len(stack.finished) > 20)
        time.sleep(1)  # the worker tries to connect meanwhile
        with private_redis(tmp_path / "data", 2**28):
            stack.wait_until_final(names)
            stack.wait(lambda: stack.started() == 0)
            assert stack.count(options) == 150
            assert stack.results(names) == {1: 150}
            assert stack.end(options) == 0
            print(f"\nRedis restarted: {dict(stack.statuses(names))}")
            assert stack.statuses(names) == {"succeeded": 150}
            stack.assert_queue_empty()
            contexts.pop_all().close()


def test_redis_is_full_for_a_while(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 100)
    options = stack.worker(sleep={"forward": 0.05})
    stack.wait(lambda: len(stack.finished) > 20)
    stack.redis.config_set("maxmemory", 1)
    try:
        stack.wait(lambda: "redis_takes_no_writes" in stack.log())
        done = stack.statuses(names)["succeeded"]
        assert done < 100
        assert stack.process(options).is_alive()
    finally:
        stack.redis.config_set("maxmemory", 2**28)
    stack.wait_until_final(names)
    stack.wait(lambda: stack.started() == 0)
    assert stack.retries_left(names) == {2}
    assert stack.count(options) == 100
    assert stack.count(options, "failed") == 0
    assert stack.results(names) == {1: 100}
    assert stack.end(options) == 0
    stack.assert_outcome(f"Redis was full after {done}", names, succeeded=100)


def test_redis_hangs_during_processing(tmp_path: Path) -> None:
    with private_redis(tmp_path / "data", 2**28) as (url, redis), opened(url, tmp_path) as stack:
        names = stack.submit(*[GOOD] * 100)
        options = stack.worker(sleep={"forward": 0.1}, command_timeout=_COMMAND_TIMEOUT)
        stack.wait(lambda: len(stack.finished) > 20)
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            time.sleep(_COMMAND_TIMEOUT + 1)  # so that the worker repeats a command
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        stack.wait_until_final(names)
        stack.wait(lambda: stack.started() == 0)
        assert stack.count(options) == 100
        assert stack.results(names) == {1: 100}
        assert stack.end(options) == 0
        stack.assert_outcome("Redis hung", names, succeeded=100)
