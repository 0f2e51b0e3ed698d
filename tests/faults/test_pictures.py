"""Pictures and batches that go wrong, and large pictures beside small ones."""

from __future__ import annotations

import signal

import pytest

from app.contract.schemas import ErrorCode, Status, View
from tests.faults.house import BAD, DEADLY, GOOD, LARGE, House
from worker.scripts import MOST_DEATHS

pytestmark = pytest.mark.timeout(600)


def test_a_poison_picture_fails_alone_in_each_place_of_a_batch(house: House) -> None:
    places = [[BAD if at == place else GOOD for at in range(4)] for place in range(4)]
    names = house.submit(*(picture for batch in places for picture in batch))
    assert house.end(house.worker(max_batch=4, burst=True), terminate=False) == 0
    assert "batch_halved" in house.log()
    for at, name in enumerate(names):
        record = house.record(name)
        if at % 5:
            assert record.status is Status.SUCCEEDED
        else:
            assert record.error is not None
            assert record.error.code is ErrorCode.PROCESSING_FAILED
    assert house.failed() == 4
    house.account("poison in each place", names, succeeded=12, failed=4)


def test_a_batch_that_raises_is_halved_until_it_passes(house: House) -> None:
    names = house.submit(*[GOOD] * 16)
    assert house.end(house.worker(largest=3, burst=True), terminate=False) == 0
    assert "batch_halved" in house.log()
    house.account("batches of more than 3 raise", names, succeeded=16)
    assert house.failed() == 0


def test_out_of_memory_makes_batches_smaller_and_fails_nothing(house: House) -> None:
    names = house.submit(*[GOOD] * 24) + house.submit(LARGE, view=View.TILED)
    assert house.end(house.worker(too_many=8, burst=True), terminate=False) == 0
    assert house.log().count("going on with 4") == 1
    assert "batch_halved" not in house.log()
    house.account("out of memory at 8", names, succeeded=25)


def test_a_picture_that_kills_the_process_takes_no_other_with_it(house: House) -> None:
    names = house.submit(*[GOOD] * 3, DEADLY, *[GOOD] * 4)
    deaths = 0
    while code := house.end(house.worker(max_batch=8, burst=True), terminate=False):
        assert code == -signal.SIGKILL, house.end_of_log()
        deaths += 1
        house.abandon_all()
    assert deaths == MOST_DEATHS + 1
    innocent = [name for at, name in enumerate(names) if at != 3]
    assert house.tries_left(innocent) == {2}
    house.account(f"{deaths} processes killed by one picture", names, succeeded=7, failed=1)
    error = house.record(names[3]).error
    assert error is not None
    assert error.code is ErrorCode.PROCESSING_FAILED
    assert house.failed() == 1


def test_small_pictures_finish_before_the_large_one_ahead_of_them(house: House) -> None:
    orders = house.worker(sleep={"forward": 0.1})
    (large,) = house.submit(LARGE, view=View.TILED)
    house.wait(house.started)
    small = house.submit(*[GOOD] * 6)
    house.wait_until_final([large, *small])
    house.end(orders)
    house.account("a picture of 64 tiles and 6 small ones", [large, *small], succeeded=7)
    assert house.record(large).view.tiles == 64
    assert house.finished[-1] == large
