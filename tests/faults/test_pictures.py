"""Pictures and batches that fail, and large pictures among small ones."""

from __future__ import annotations

import signal

import pytest

from app.contract.schemas import ErrorCode, Status
from pictures.findings import View
from tests.faults.stack import CRASHING, FAILING, GOOD, LARGE, Stack
from worker.scripts import MAX_DEATHS

pytestmark = pytest.mark.timeout(600)


def test_failing_picture_fails_alone_at_any_position_in_a_batch(stack: Stack) -> None:
    places = [[FAILING if at == place else GOOD for at in range(4)] for place in range(4)]
    names = stack.submit(*(picture for batch in places for picture in batch))
    assert stack.end(stack.worker(max_batch=4, burst=True), terminate=False) == 0
    assert "batch_halved" in stack.log()
    for at, name in enumerate(names):
        record = stack.record(name)
        if at % 5:
            assert record.status is Status.SUCCEEDED
        else:
            assert record.error is not None
            assert record.error.code is ErrorCode.PROCESSING_FAILED
    assert stack.failed() == 4
    stack.assert_outcome("a failing picture at each position", names, succeeded=12, failed=4)


def test_failing_batch_is_halved_until_it_succeeds(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 16)
    assert stack.end(stack.worker(max_crops=3, burst=True), terminate=False) == 0
    assert "batch_halved" in stack.log()
    stack.assert_outcome("batches of more than 3 raise", names, succeeded=16)
    assert stack.failed() == 0


def test_out_of_memory_reduces_the_batch_size(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 24) + stack.submit(LARGE, view=View.TILED)
    assert stack.end(stack.worker(out_of_memory_at=8, burst=True), terminate=False) == 0
    assert stack.log().count("continuing with 4") == 1
    assert "batch_halved" not in stack.log()
    stack.assert_outcome("out of memory at 8", names, succeeded=25)


def test_picture_that_crashes_the_worker_fails_alone(stack: Stack) -> None:
    names = stack.submit(*[GOOD] * 3, CRASHING, *[GOOD] * 4)
    deaths = 0
    while code := stack.end(stack.worker(max_batch=8, burst=True), terminate=False):
        assert code == -signal.SIGKILL, stack.end_of_log()
        deaths += 1
        stack.abandon_all()
    assert deaths == MAX_DEATHS + 1
    others = [name for at, name in enumerate(names) if at != 3]
    assert stack.retries_left(others) == {2}
    stack.assert_outcome(f"{deaths} workers crashed by one picture", names, succeeded=7, failed=1)
    error = stack.record(names[3]).error
    assert error is not None
    assert error.code is ErrorCode.PROCESSING_FAILED
    assert stack.failed() == 1


def test_small_pictures_finish_before_a_large_one_submitted_first(stack: Stack) -> None:
    options = stack.worker(sleep={"forward": 0.1})
    (large,) = stack.submit(LARGE, view=View.TILED)
    stack.wait(stack.started)
    small = stack.submit(*[GOOD] * 6)
    stack.wait_until_final([large, *small])
    stack.end(options)
    stack.assert_outcome("a picture of 64 tiles and 6 small ones", [large, *small], succeeded=7)
    assert stack.record(large).view.tiles == 64
    assert stack.finished[-1] == large
