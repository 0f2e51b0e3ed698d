"""Workers that are killed, paused or stopped, or whose device fails."""

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
from app.contract.recorder import CommandRecorder
from app.contract.schemas import Status
from tests.faults.stack import GOOD, LIMIT, OWNER, Stack
from tests.faults.worker import STAGES, WorkerOptions
from worker import jobs

pytestmark = pytest.mark.timeout(900)


def stalled(
    stack: Stack, folder: Path, stage: str, **more: object
) -> tuple[WorkerOptions, list[str]]:
    """A worker that has taken four detections and stalls in `stage`."""
    folder.mkdir()
    before = stack.started()
    names = stack.submit(*[GOOD] * 4)
    options = stack.worker(max_batch=2, stall=stage, touch=str(folder), **more)
    stack.wait(lambda: stack.started() == before + 4 and (folder / stage).exists())
    return options, names


@pytest.mark.parametrize("stage", STAGES)
def test_killed_before_during_and_after_the_forward_pass(
    stack: Stack, tmp_path: Path, stage: str
) -> None:
    killed, names = stalled(stack, tmp_path / stage, stage)
    names += stack.submit(*[GOOD] * 4)  # they wait behind the four taken ones
    stack.process(killed).kill()
    stack.process(killed).join(LIMIT)
    assert stack.started() == 4
    stack.abandon_all()
    rescuer = stack.worker(burst=True)
    assert stack.end(rescuer, terminate=False) == 0
    assert stack.count(rescuer) == 8
    assert stack.count(killed) == 0
    assert stack.results(names) == {1: 8}
    stack.assert_outcome(f"kill -9 in {stage}", names, succeeded=8)


def test_worker_paused_past_its_heartbeat_finishes_nothing_twice(
    stack: Stack, tmp_path: Path
) -> None:
    assert jobs.EXECUTION_TTL + 2 * jobs.MAINTENANCE_INTERVAL == 55  # as documented
    soon = {"abandoned_after": 4}
    paused, names = stalled(stack, tmp_path / "paused", "forward", **soon)
    killed, more = stalled(stack, tmp_path / "killed", "forward", **soon)
    names += more
    os.kill(stack.process(paused).pid, signal.SIGSTOP)
    stack.process(killed).kill()
    start = time.monotonic()
    rescuer = stack.worker(**soon)
    stack.wait_until_final(names)  # after the real timeout
    seconds = time.monotonic() - start
    (tmp_path / "paused" / "go").touch()
    os.kill(stack.process(paused).pid, signal.SIGCONT)
    stack.wait(lambda: stack.log().count("job_taken_over") == 4)
    stack.wait(lambda: stack.started() == 0)
    assert stack.count(rescuer) == 8
    assert stack.count(paused) == stack.count(paused, "failed") == 0
    assert stack.results(names) == {1: 8}
    assert stack.end(paused) == stack.end(rescuer) == 0
    title = f"one worker paused, one killed, their jobs done by another after {seconds:.0f} s"
    stack.assert_outcome(title, names, succeeded=8)


def test_jobs_lost_by_redis_are_logged_and_the_worker_registers_again(
    stack: Stack, tmp_path: Path
) -> None:
    options, _ = stalled(stack, tmp_path / "stalled", "forward")
    stack.redis.flushall()
    (tmp_path / "stalled" / "go").touch()
    stack.wait(lambda: stack.log().count("job_lost") == 4)
    assert "job_taken_over" not in stack.log()
    stack.wait(lambda: [worker.name for worker in Worker.all(queue=stack.queue)] == [options.name])
    assert stack.end(options) == 0
    stack.assert_queue_empty()


def test_detection_deleted_during_processing_stays_deleted(stack: Stack, tmp_path: Path) -> None:
    options, taken = stalled(stack, tmp_path / "stalled", "decode")
    waiting = stack.submit(GOOD, GOOD)
    for name in (taken[0], taken[3], waiting[0]):
        stack.service.delete(name, OWNER)
    (tmp_path / "stalled" / "go").touch()
    kept = [taken[1], taken[2], waiting[1]]
    stack.wait_until_final(kept)
    stack.wait(lambda: stack.started() == 0)
    assert stack.end(options) == 0
    assert [stack.store.get(name) for name in (taken[0], taken[3], waiting[0])] == [None] * 3
    holders = stack.redis.keys("gamma:masks:*:holders")
    assert sum(stack.redis.zcard(key) for key in holders) == len(kept)
    stack.assert_queue_empty()


def test_queued_job_of_a_deleted_detection_is_skipped(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 4)
    for name in names:  # the record only, as if a worker had just taken the job
        assert stack.store.delete(name, OWNER, CommandRecorder(stack.redis))
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    assert "crops=" not in stack.log()
    assert stack.results(names) == {1: 4}
    stack.assert_queue_empty()
    stack.submit(GOOD)
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    assert "crops=1 " in stack.log()  # control: computed crops are logged


def test_expired_detections_are_not_computed(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 6)
    for name in names[::2]:
        stack.redis.hset(records.key(name), "deadline", time.time() - 1)
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    crops = sum(map(int, re.findall(r"crops=(\d+)", stack.log())))
    print(f"\nlate ones: {dict(stack.statuses(names))}; {crops} crops computed")
    assert [stack.record(name).status for name in names] == [Status.EXPIRED, Status.SUCCEEDED] * 3
    assert crops == 3
    assert stack.results(names) == {1: 6}
    stack.assert_queue_empty()


def test_jobs_of_a_failed_device_are_put_back(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 40)
    sick = stack.worker(device_error_at=3, sleep={"forward": 0.1})
    stack.process(sick).join(LIMIT)
    assert stack.process(sick).exitcode == 1
    assert stack.store.workers.live() == []
    done = stack.statuses(names)["succeeded"]
    assert 0 < done < 40
    assert stack.started() == 0
    assert stack.redis.llen(stack.queue.key) == 40 - done
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    stack.assert_outcome(f"device error after {done}", names, succeeded=40)


def test_worker_whose_device_hangs_is_not_ready_and_exits(stack: Stack, tmp_path: Path) -> None:
    def ready() -> bool:
        return bool(stack.store.workers.live())

    options = stack.worker(stall="forward", touch=str(tmp_path), unready_after=0.5, exit_after=20)
    stack.wait(ready)
    names = stack.submit(GOOD)
    stack.wait(lambda: not ready())
    assert stack.process(options).is_alive()
    (tmp_path / "go").touch()
    stack.wait(ready)
    stack.wait_until_final(names)
    stack.end(options)
    stack.assert_outcome("a device that hung for a while", names, succeeded=1)

    (tmp_path / "go").unlink()
    options = stack.worker(stall="forward", touch=str(tmp_path), unready_after=0.2, exit_after=0.5)
    stack.submit(GOOD)
    stack.process(options).join(LIMIT)
    assert stack.process(options).exitcode == 1
    assert "device_hangs" in stack.log()


def test_sigterm_finishes_jobs_in_all_stages(stack: Stack, tmp_path: Path) -> None:
    names = stack.submit(*[GOOD] * 24)
    options = stack.worker(
        max_batch=4, touch=str(tmp_path), sleep=dict.fromkeys(STAGES, 0.2), burst=True
    )
    stack.wait(lambda: all((tmp_path / stage).exists() for stage in STAGES))
    assert stack.end(options) == 0
    statuses = stack.statuses(names)
    done = statuses["succeeded"]
    assert 0 < done < 24
    assert statuses == {"succeeded": done, "queued": 24 - done}
    assert stack.redis.llen(stack.queue.intermediate_queue_key) == stack.started() == 0
    assert stack.store.workers.live() == []
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    stack.assert_outcome(f"SIGTERM after {done}", names, succeeded=24)


def test_two_workers_share_a_queue(stack: Stack) -> None:
    pair = [stack.worker(sleep={"forward": 0.02}) for _ in range(2)]
    stack.wait(lambda: len(stack.store.workers.live()) == 2)
    names = stack.submit(*[GOOD] * 80)
    stack.wait_until_final(names)
    stack.wait(lambda: stack.started() == 0)
    counts = [stack.count(options) for options in pair]
    assert sum(counts) == 80
    assert min(counts) > 0
    assert stack.results(names) == {1: 80}
    assert [stack.end(options) for options in pair] == [0, 0]
    stack.assert_outcome(f"two workers did {counts}", names, succeeded=80)


def test_max_jobs_counts_jobs(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 12)
    assert stack.end(stack.worker(max_jobs=5), terminate=False) == 0
    assert stack.statuses(names) == {"succeeded": 5, "queued": 7}
    assert stack.end(stack.worker(burst=True), terminate=False) == 0
    stack.assert_outcome("5, then the rest", names, succeeded=12)


def test_rq_shows_the_state_of_the_worker(stack: Stack, tmp_path: Path) -> None:
    def state() -> str:
        (worker,) = Worker.all(queue=stack.queue)
        return worker.get_state()

    options, names = stalled(stack, tmp_path / "stalled", "forward")
    assert state() == "busy"
    (worker,) = Worker.all(queue=stack.queue)
    assert worker.current_execution_count == 4
    info = [sys.executable, "-m", "rq.cli", "info", "--url", stack.url]
    shown = subprocess.run(info, capture_output=True, text=True, check=True).stdout
    assert options.name in shown
    assert "busy" in shown

    suspend(stack.redis)
    late = stack.submit(GOOD)
    (tmp_path / "stalled" / "go").touch()
    stack.wait_until_final(names)
    stack.wait(lambda: state() == "suspended")
    assert stack.end(stack.worker(burst=True), terminate=False) == 0  # it takes no jobs
    assert stack.record(late[0]).status is Status.QUEUED

    resume(stack.redis)
    stack.wait_until_final(late)
    stack.wait(lambda: state() == "idle")
    assert stack.end(options) == 0
    stack.assert_outcome("before and after the suspension", [*names, *late], succeeded=5)
