"""Detection of a device that hangs."""

from __future__ import annotations

from worker.heartbeat import StallTimer


def test_worker_without_work_never_stalls() -> None:
    timer = StallTimer()
    assert timer.stalled(1e6) == 0
    timer.succeeded(5)
    assert timer.stalled(1e6) == 0


def test_time_counts_from_the_first_waiting_crop() -> None:
    timer = StallTimer()
    timer.work_arrived(10)
    timer.work_arrived(50)
    assert timer.stalled(100) == 90


def test_success_restarts_the_timer_while_crops_wait() -> None:
    timer = StallTimer()
    timer.work_arrived(10)
    timer.succeeded(30)
    assert timer.stalled(35) == 5


def test_failed_passes_do_not_count() -> None:
    timer = StallTimer()
    for now in range(0, 200, 10):
        timer.work_arrived(now)
    assert timer.stalled(200) == 200


def test_idle_stops_the_timer() -> None:
    timer = StallTimer()
    timer.work_arrived(10)
    timer.succeeded(20)
    timer.idle()
    assert timer.stalled(500) == 0
    timer.work_arrived(600)
    assert timer.stalled(601) == 1
