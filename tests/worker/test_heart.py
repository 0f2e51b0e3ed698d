"""When a device counts as hanging, on a clock that only the test moves."""

from __future__ import annotations

from worker.heart import Progress


def test_a_worker_without_work_never_stalls() -> None:
    progress = Progress()
    assert progress.stalled(1e6) == 0
    progress.succeeded(5)
    assert progress.stalled(1e6) == 0


def test_time_counts_from_the_first_crop_that_waits() -> None:
    progress = Progress()
    progress.waits(10)
    progress.waits(50)
    assert progress.stalled(100) == 90


def test_each_success_starts_it_anew_while_crops_wait() -> None:
    progress = Progress()
    progress.waits(10)
    progress.succeeded(30)
    assert progress.stalled(35) == 5


def test_passes_that_only_fail_do_not_count() -> None:
    progress = Progress()
    for now in range(0, 200, 10):
        progress.waits(now)
    assert progress.stalled(200) == 200


def test_rest_ends_the_wait() -> None:
    progress = Progress()
    progress.waits(10)
    progress.succeeded(20)
    progress.rests()
    assert progress.stalled(500) == 0
    progress.waits(600)
    assert progress.stalled(601) == 1
