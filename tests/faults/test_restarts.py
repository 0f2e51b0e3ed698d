"""Workers that are stopped or killed, once or repeatedly, while processing large pictures."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from app.contract.schemas import ErrorCode
from pictures.findings import View
from tests.faults.stack import CRASHING, GOOD, LARGE, Stack
from worker.scripts import MAX_DEATHS

pytestmark = pytest.mark.timeout(600)

STOP_TIMEOUT = 10.0  # s, the minimum
BUSY = 10.0  # s more until the end is seen, if the machine is busy


def test_sigterm_finishes_started_jobs_and_puts_the_others_back(
    stack: Stack, tmp_path: Path
) -> None:
    names = stack.submit(*[GOOD] * 6)
    late = stack.submit(GOOD)
    options = stack.worker(max_batch=3, stall="forward", touch=str(tmp_path))
    stack.wait(lambda: stack.started() == 6 and (tmp_path / "forward").exists())
    stack.process(options).terminate()
    stack.wait(lambda: stack.started() <= 3)  # while the others are being computed
    waiting = [name.decode() for name in stack.redis.lrange(stack.queue.key, 0, -1)]
    assert waiting == [*(name for name in names if name in waiting), *late]
    (tmp_path / "go").touch()
    assert stack.end(options, terminate=False) == 0
    done = stack.statuses(names)["succeeded"]
    assert 0 < done == 6 - len(waiting[:-1])
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    assert stack.retries_left([*names, *late]) == {2}
    stack.assert_outcome(f"{done} were started", [*names, *late], succeeded=7)


def test_sigterm_with_16_large_pictures_ends_within_the_stop_timeout(stack: Stack) -> None:
    names = stack.submit(*[LARGE] * 16, view=View.TILED)  # 1024 tiles: 40 s
    options = stack.worker(sleep={"forward": 0.3}, stop_timeout=STOP_TIMEOUT)
    stack.wait(lambda: stack.log().count("pictures=") > 2)
    assert stack.started() == 16
    before = time.monotonic()
    assert stack.end(options) == 0
    seconds = time.monotonic() - before
    assert seconds < STOP_TIMEOUT + BUSY
    assert stack.started() == 0
    done = stack.statuses(names)["succeeded"]
    waiting = [name.decode() for name in stack.redis.lrange(stack.queue.key, 0, -1)]
    assert waiting == [name for name in names if name in waiting]  # in order
    assert len(waiting) == 16 - done
    assert stack.retries_left(names) == {2}
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    stack.assert_outcome(
        f"SIGTERM with 16 large pictures, ended in {seconds:.1f} s", names, succeeded=16
    )


def test_sigterm_while_redis_is_frozen_ends_within_the_stop_timeout(stack: Stack) -> None:
    names = stack.submit(*[LARGE] * 2, view=View.TILED)
    options = stack.worker(sleep={"forward": 1.0}, stop_timeout=STOP_TIMEOUT)
    stack.wait(lambda: stack.started() == 2)
    redis = stack.redis.info("server")["process_id"]
    os.kill(redis, signal.SIGSTOP)
    try:
        before = time.monotonic()
        assert stack.end(options) == 1
        assert time.monotonic() - before < STOP_TIMEOUT + BUSY
    finally:
        os.kill(redis, signal.SIGCONT)
    stack.abandon_all()
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    assert stack.retries_left(names) == {2}


def test_second_sigterm_ends_the_worker_at_once_without_using_retries(stack: Stack) -> None:
    names = stack.submit(*[LARGE] * 4, view=View.TILED)
    options = stack.worker(sleep={"forward": 0.5})
    stack.wait(lambda: stack.log().count("pictures=") > 1)
    stack.process(options).terminate()
    stack.wait(lambda: not stack.store.workers.live())
    time.sleep(1.5)  # RQ ignores a second signal within one second
    assert stack.end(options) == 0
    assert stack.started() == 0
    assert stack.redis.llen(stack.queue.key) == 4
    assert stack.retries_left(names) == {2}
    assert not any(stack.redis.hexists(f"rq:job:{name}", "deaths") for name in names)


def test_ten_restarts_lose_no_jobs(stack: Stack) -> None:
    names = stack.submit(*[LARGE] * 6, view=View.TILED) + stack.submit(*[GOOD] * 10)
    slow = {"forward": 0.3}
    for number in range(10):
        batches = stack.log().count("pictures=")
        options = stack.worker(sleep=slow, stop_timeout=STOP_TIMEOUT)
        stack.wait(lambda: stack.log().count("pictures=") > batches)  # noqa: B023 - now
        if number % 2:
            stack.process(options).kill()
        assert stack.end(options) == (-signal.SIGKILL if number % 2 else 0)
        stack.abandon_all()
    assert stack.statuses(names)["failed"] == 0
    assert stack.statuses(names)["succeeded"] < 16
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    stack.assert_outcome("ten restarts", names, succeeded=16)
    assert "job_lost" not in stack.log()


def test_crashing_picture_is_found_despite_repeated_roll_outs(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 2, CRASHING, *[GOOD] * 4)
    deaths = roll_outs = 0
    while deaths <= MAX_DEATHS:
        batches = stack.log().count("pictures=")
        options = stack.worker(stop_timeout=STOP_TIMEOUT)
        process = stack.process(options)
        stack.wait(lambda: not process.is_alive() or stack.log().count("pictures=") > batches)  # noqa: B023
        code = stack.end(options)
        deaths += code == -signal.SIGKILL
        roll_outs += not code
        stack.abandon_all()
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    others = [name for name in names if name != names[2]]
    assert stack.retries_left(others) == {2}
    stack.assert_outcome(
        f"{deaths} deaths among {roll_outs} roll-outs", names, succeeded=6, failed=1
    )
    error = stack.record(names[2]).error
    assert error is not None
    assert error.code is ErrorCode.PROCESSING_FAILED
