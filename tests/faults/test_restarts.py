"""Workers that are told to stop, or killed, again and again, with large pictures in hand."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from app.contract.schemas import ErrorCode, View
from tests.faults.house import DEADLY, GOOD, LARGE, House
from worker.scripts import MOST_DEATHS

pytestmark = pytest.mark.timeout(600)

STOP_TIMEOUT = 10.0  # s, the least


def test_sigterm_puts_back_what_is_not_begun_and_finishes_the_rest(
    house: House, tmp_path: Path
) -> None:
    names = house.submit(*[GOOD] * 6)
    late = house.submit(GOOD)
    orders = house.worker(max_batch=3, stall="forward", touch=str(tmp_path))
    house.wait(lambda: house.started() == 6 and (tmp_path / "forward").exists())
    house.process(orders).terminate()
    house.wait(lambda: house.started() <= 3)  # while the others are being computed
    waiting = [name.decode() for name in house.redis.lrange(house.queue.key, 0, -1)]
    assert waiting == [*(name for name in names if name in waiting), *late]
    (tmp_path / "go").touch()
    assert house.end(orders, terminate=False) == 0
    done = house.statuses(names)["succeeded"]
    assert 0 < done == 6 - len(waiting[:-1])
    assert house.end(house.worker(burst=True), terminate=False) == 0
    assert house.tries_left([*names, *late]) == {2}
    house.account(f"{done} were begun", [*names, *late], succeeded=7)


def test_sigterm_with_sixteen_large_pictures_in_hand_ends_in_time(house: House) -> None:
    names = house.submit(*[LARGE] * 16, view=View.TILED)  # 1024 tiles: minutes
    orders = house.worker(sleep={"forward": 1.0}, stop_timeout=STOP_TIMEOUT)
    house.wait(lambda: house.log().count("pictures=") > 2)
    assert house.started() == 16
    before = time.monotonic()
    assert house.end(orders) == 0
    seconds = time.monotonic() - before
    assert seconds < STOP_TIMEOUT
    assert house.started() == 0
    done = house.statuses(names)["succeeded"]
    waiting = [name.decode() for name in house.redis.lrange(house.queue.key, 0, -1)]
    assert waiting == [name for name in names if name in waiting]  # in their order
    assert len(waiting) == 16 - done
    assert house.tries_left(names) == {2}
    assert house.end(house.worker(burst=True), terminate=False) == 0
    house.account(f"SIGTERM with 16 large ones, over in {seconds:.1f} s", names, succeeded=16)


def test_sigterm_while_redis_is_frozen_ends_in_time_too(house: House) -> None:
    names = house.submit(*[LARGE] * 2, view=View.TILED)
    orders = house.worker(sleep={"forward": 1.0}, stop_timeout=STOP_TIMEOUT)
    house.wait(lambda: house.started() == 2)
    redis = house.redis.info("server")["process_id"]
    os.kill(redis, signal.SIGSTOP)
    try:
        before = time.monotonic()
        assert house.end(orders) == 1
        assert time.monotonic() - before < STOP_TIMEOUT
    finally:
        os.kill(redis, signal.SIGCONT)
    house.abandon_all()
    assert house.end(house.worker(burst=True), terminate=False) == 0
    assert house.tries_left(names) == {2}


def test_a_second_sigterm_ends_it_at_once_and_costs_nothing_either(house: House) -> None:
    names = house.submit(*[LARGE] * 4, view=View.TILED)
    orders = house.worker(sleep={"forward": 0.5})
    house.wait(lambda: house.log().count("pictures=") > 1)
    house.process(orders).terminate()
    time.sleep(1.5)  # RQ takes one within a second for the same signal
    before = time.monotonic()
    assert house.end(orders) == 0
    assert time.monotonic() - before < STOP_TIMEOUT
    assert house.started() == 0
    assert house.redis.llen(house.queue.key) == 4
    assert house.tries_left(names) == {2}
    assert not any(house.redis.hexists(f"rq:job:{name}", "deaths") for name in names)


def test_ten_restarts_during_one_queue_lose_and_fail_nothing(house: House) -> None:
    names = house.submit(*[LARGE] * 6, view=View.TILED) + house.submit(*[GOOD] * 10)
    slow = {"forward": 0.5}
    for number in range(10):
        batches = house.log().count("pictures=")
        orders = house.worker(sleep=slow, stop_timeout=STOP_TIMEOUT)
        house.wait(lambda: house.log().count("pictures=") > batches)  # noqa: B023 - now
        if number % 2:
            house.process(orders).kill()
        assert house.end(orders) == (-signal.SIGKILL if number % 2 else 0)
        house.abandon_all()
    assert house.statuses(names)["failed"] == 0
    assert house.statuses(names)["succeeded"] < 16
    assert house.end(house.worker(burst=True), terminate=False) == 0
    house.account("ten restarts", names, succeeded=16)
    assert "job_lost" not in house.log()


def test_poison_among_innocents_is_found_over_repeated_roll_outs(house: House) -> None:
    names = house.submit(*[GOOD] * 2, DEADLY, *[GOOD] * 4)
    deaths = roll_outs = 0
    while deaths <= MOST_DEATHS:
        batches = house.log().count("pictures=")
        orders = house.worker(stop_timeout=STOP_TIMEOUT)
        process = house.process(orders)
        house.wait(lambda: not process.is_alive() or house.log().count("pictures=") > batches)  # noqa: B023
        code = house.end(orders)
        deaths += code == -signal.SIGKILL
        roll_outs += not code
        house.abandon_all()
    assert house.end(house.worker(burst=True), terminate=False) == 0
    innocent = [name for name in names if name != names[2]]
    assert house.tries_left(innocent) == {2}
    house.account(f"{deaths} deaths among {roll_outs} roll-outs", names, succeeded=6, failed=1)
    error = house.record(names[2]).error
    assert error is not None
    assert error.code is ErrorCode.PROCESSING_FAILED
