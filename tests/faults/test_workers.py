"""Workers that are killed, paused, told to stop, or whose device fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rq import Worker
from rq.suspension import resume, suspend

from app.contract import records
from app.contract.schemas import Status
from tests.faults.house import GOOD, LIMIT, OWNER, House
from tests.faults.worker import STAGES, Orders
from worker import jobs

pytestmark = pytest.mark.timeout(900)


def stalled(house: House, folder: Path, stage: str, **given: object) -> tuple[Orders, list[str]]:
    """A worker that holds four detections and goes no further than this stage."""
    folder.mkdir()
    before = house.started()
    names = house.submit(*[GOOD] * 4)
    orders = house.worker(max_batch=2, stall=stage, touch=str(folder), **given)
    house.wait(lambda: house.started() == before + 4 and (folder / stage).exists())
    return orders, names


@pytest.mark.parametrize("stage", STAGES)
def test_killed_before_during_and_after_the_forward_pass(
    house: House, tmp_path: Path, stage: str
) -> None:
    killed, names = stalled(house, tmp_path / stage, stage)
    names += house.submit(*[GOOD] * 4)  # its victim held four; these wait behind them
    house.process(killed).kill()
    house.process(killed).join(LIMIT)
    assert house.started() == 4
    house.abandon_all()
    rescuer = house.worker(burst=True)
    assert house.end(rescuer, terminate=False) == 0
    assert house.count(rescuer) == 8
    assert house.count(killed) == 0
    assert house.results(names) == {1: 8}
    house.account(f"kill -9 in {stage}", names, succeeded=8)


def test_a_worker_that_is_paused_past_its_heartbeat_finishes_nothing_twice(
    house: House, tmp_path: Path
) -> None:
    assert jobs.EXECUTION_TTL + 2 * jobs.MAINTENANCE_INTERVAL == 55  # as is documented
    soon = {"abandoned_after": 6}
    paused, names = stalled(house, tmp_path / "paused", "forward", **soon)
    killed, held = stalled(house, tmp_path / "killed", "forward", **soon)
    names += held
    os.kill(house.process(paused).pid, signal.SIGSTOP)
    house.process(killed).kill()
    start = time.monotonic()
    rescuer = house.worker(**soon)
    house.wait_until_final(names)  # here the time that this takes does pass
    seconds = time.monotonic() - start
    (tmp_path / "paused" / "go").touch()
    os.kill(house.process(paused).pid, signal.SIGCONT)
    house.wait(lambda: house.log().count("job_taken_over") == 4)
    house.wait(lambda: house.started() == 0)
    assert house.count(rescuer) == 8
    assert house.count(paused) == house.count(paused, "failed") == 0
    assert house.results(names) == {1: 8}
    assert house.end(paused) == house.end(rescuer) == 0
    title = f"one worker paused, one killed, their work done again after {seconds:.0f} s"
    house.account(title, names, succeeded=8)


def test_work_that_redis_has_lost_is_logged_and_the_worker_registers_again(
    house: House, tmp_path: Path
) -> None:
    orders, _ = stalled(house, tmp_path / "stalled", "forward")
    house.redis.flushall()
    (tmp_path / "stalled" / "go").touch()
    house.wait(lambda: house.log().count("job_lost") == 4)
    assert "job_taken_over" not in house.log()
    house.wait(lambda: [worker.name for worker in Worker.all(queue=house.queue)] == [orders.name])
    assert house.end(orders) == 0
    house.nothing_is_left()


def test_what_is_deleted_is_not_computed_and_does_not_come_back(
    house: House, tmp_path: Path
) -> None:
    orders, held = stalled(house, tmp_path / "stalled", "decode")
    waiting = house.submit(GOOD, GOOD)
    for name in (held[0], held[3], waiting[0]):
        house.service.delete(name, OWNER)
    (tmp_path / "stalled" / "go").touch()
    kept = [held[1], held[2], waiting[1]]
    house.wait_until_final(kept)
    house.wait(lambda: house.started() == 0)
    assert house.end(orders) == 0
    assert [house.store.get(name) for name in (held[0], held[3], waiting[0])] == [None] * 3
    holders = house.redis.keys("gamma:masks:*:holders")
    assert sum(house.redis.zcard(key) for key in holders) == len(kept)
    house.nothing_is_left()


def test_a_deleted_detection_whose_job_still_waits_is_skipped(house: House) -> None:
    names = house.submit(*[GOOD] * 4)
    for name in names:  # as if a worker had taken the jobs at that moment
        assert house.store.delete(name, OWNER, house.redis.pipeline())
    assert house.end(house.worker(burst=True), terminate=False) == 0
    assert "crops=" not in house.log()
    assert house.results(names) == {1: 4}
    house.nothing_is_left()
    house.submit(GOOD)
    assert house.end(house.worker(burst=True), terminate=False) == 0
    assert "crops=1 " in house.log()  # which it says of what it computes


def test_what_has_waited_too_long_is_expired_and_not_computed(house: House) -> None:
    names = house.submit(*[GOOD] * 6)
    for name in names[::2]:
        house.redis.hset(records.key(name), "deadline", time.time() - 1)
    assert house.end(house.worker(burst=True), terminate=False) == 0
    crops = sum(map(int, re.findall(r"crops=(\d+)", house.log())))
    print(f"\nlate ones: {dict(house.statuses(names))}; {crops} crops computed")
    assert [house.record(name).status for name in names] == [Status.EXPIRED, Status.SUCCEEDED] * 3
    assert crops == 3
    assert house.results(names) == {1: 6}
    house.nothing_is_left()


def test_work_in_hand_of_a_sick_device_is_queued_again(house: House) -> None:
    names = house.submit(*[GOOD] * 40)
    sick = house.worker(device_error_at=3, sleep={"forward": 0.1})
    house.process(sick).join(LIMIT)
    assert house.process(sick).exitcode == 1
    assert house.store.live_workers() == []
    done = house.statuses(names)["succeeded"]
    assert 0 < done < 40
    assert house.started() == 0
    assert house.redis.llen(house.queue.key) == 40 - done
    assert house.end(house.worker(burst=True), terminate=False) == 0
    house.account(f"device error after {done}", names, succeeded=40)


def test_a_worker_whose_device_hangs_is_not_ready_and_ends_at_last(
    house: House, tmp_path: Path
) -> None:
    def ready() -> bool:
        return bool(house.store.live_workers())

    orders = house.worker(stall="forward", touch=str(tmp_path), sick_after=0.5, hopeless_after=20)
    house.wait(ready)
    names = house.submit(GOOD)
    house.wait(lambda: not ready())
    assert house.process(orders).is_alive()
    (tmp_path / "go").touch()
    house.wait(ready)
    house.wait_until_final(names)
    house.end(orders)
    house.account("a device that hung and came back", names, succeeded=1)

    (tmp_path / "go").unlink()
    orders = house.worker(stall="forward", touch=str(tmp_path), sick_after=0.2, hopeless_after=0.5)
    house.submit(GOOD)
    house.process(orders).join(LIMIT)
    assert house.process(orders).exitcode == 1
    assert "device_hangs" in house.log()


def test_sigterm_finishes_what_is_in_all_three_stages(house: House, tmp_path: Path) -> None:
    names = house.submit(*[GOOD] * 60)
    orders = house.worker(
        max_batch=4, touch=str(tmp_path), sleep=dict.fromkeys(STAGES, 0.2), burst=True
    )
    house.wait(lambda: all((tmp_path / stage).exists() for stage in STAGES))
    assert house.end(orders) == 0
    statuses = house.statuses(names)
    done = statuses["succeeded"]
    assert 0 < done < 60
    assert statuses == {"succeeded": done, "queued": 60 - done}
    assert house.redis.llen(house.queue.intermediate_queue_key) == house.started() == 0
    assert house.store.live_workers() == []
    assert house.end(house.worker(burst=True), terminate=False) == 0
    house.account(f"SIGTERM after {done}", names, succeeded=60)


def test_two_workers_share_a_queue(house: House) -> None:
    pair = [house.worker(sleep={"forward": 0.02}) for _ in range(2)]
    house.wait(lambda: len(house.store.live_workers()) == 2)
    names = house.submit(*[GOOD] * 200)
    house.wait_until_final(names)
    house.wait(lambda: house.started() == 0)
    counts = [house.count(orders) for orders in pair]
    assert sum(counts) == 200
    assert min(counts) > 0
    assert house.results(names) == {1: 200}
    assert [house.end(orders) for orders in pair] == [0, 0]
    house.account(f"two workers did {counts}", names, succeeded=200)


def test_max_jobs_counts_jobs(house: House) -> None:
    names = house.submit(*[GOOD] * 12)
    assert house.end(house.worker(max_jobs=5), terminate=False) == 0
    assert house.statuses(names) == {"succeeded": 5, "queued": 7}
    assert house.end(house.worker(burst=True), terminate=False) == 0
    house.account("5, then the rest", names, succeeded=12)


def test_rq_sees_it_busy_idle_and_suspended(house: House, tmp_path: Path) -> None:
    def state() -> str:
        (worker,) = Worker.all(queue=house.queue)
        return worker.get_state()

    orders, names = stalled(house, tmp_path / "stalled", "forward")
    assert state() == "busy"
    (worker,) = Worker.all(queue=house.queue)
    assert worker.current_execution_count == 4
    info = [sys.executable, "-m", "rq.cli", "info", "--url", house.url]
    shown = subprocess.run(info, capture_output=True, text=True, check=True).stdout
    assert orders.name in shown
    assert "busy" in shown

    suspend(house.redis)
    late = house.submit(GOOD)
    (tmp_path / "stalled" / "go").touch()
    house.wait_until_final(names)
    house.wait(lambda: state() == "suspended")
    assert house.end(house.worker(burst=True), terminate=False) == 0  # it leaves the work there
    assert house.record(late[0]).status is Status.QUEUED

    resume(house.redis)
    house.wait_until_final(late)
    house.wait(lambda: state() == "idle")
    assert house.end(orders) == 0
    house.account("before and after the suspension", [*names, *late], succeeded=5)
