"""The bucket goes away and comes back; and nothing stays in it that nobody knows of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.contract.blobs import StorageUnavailableError
from tests.buckets import Bucket
from tests.faults.house import GOOD, OWNER, House, opened
from tests.faults.worker import Orders

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def house(redis_url: str, bucket: Bucket, tmp_path: Path) -> Iterator[House]:
    with opened(redis_url, tmp_path, bucket.url) as built:
        built.redis.flushall()
        yield built


def worker(house: House, bucket: Bucket, **orders: object) -> Orders:
    return house.worker(store=bucket.url, environment=bucket.server.environment, **orders)


def test_an_outage_in_the_midst_of_batches_is_waited_out(house: House, bucket: Bucket) -> None:
    names = house.submit(*[GOOD] * 60)
    orders = worker(house, bucket, sleep={"forward": 0.1})
    house.wait(lambda: len(house.finished) > 10)
    bucket.server.link.cut()
    house.wait(lambda: "storage_unavailable" in house.log())
    with pytest.raises(StorageUnavailableError):
        house.submit(GOOD)
    assert house.process(orders).is_alive()
    bucket.server.link.open()
    house.wait_until_final(names)
    house.wait(lambda: house.started() == 0)
    assert house.tries_left(names) == {2}
    assert house.count(orders) == 60
    assert house.count(orders, "failed") == 0
    assert "job_put_back" not in house.log()
    assert house.end(orders) == 0
    house.account("the bucket was away", names, succeeded=60)
    assert len(bucket.objects()) == 3 * 60


def test_a_long_outage_costs_no_try(house: House, bucket: Bucket) -> None:
    names = house.submit(*[GOOD] * 20)
    orders = worker(house, bucket, patience=0.2, sleep={"forward": 0.1})
    house.wait(lambda: len(house.finished) > 2)
    bucket.server.link.cut()
    house.wait(lambda: house.log().count("job_put_back") > 3 * 20)  # each often enough to fail
    bucket.server.link.open()
    house.wait_until_final(names)
    house.wait(lambda: house.started() == 0)
    assert house.tries_left(names) == {2}
    assert house.count(orders, "failed") == 0
    assert house.end(orders) == 0
    house.account("the bucket was away for long", names, succeeded=20)


def test_sigterm_in_an_outage_puts_back_what_is_in_hand(house: House, bucket: Bucket) -> None:
    names = house.submit(*[GOOD] * 10)
    bucket.server.link.cut()
    orders = worker(house, bucket)
    house.wait(lambda: "storage_unavailable" in house.log())
    assert house.end(orders) == 0
    assert house.started() == 0
    assert house.redis.llen(house.queue.key) == 10
    assert house.tries_left(names) == {2}
    bucket.server.link.open()
    assert house.end(worker(house, bucket, burst=True), terminate=False) == 0
    house.account("before and after the outage", names, succeeded=10)


def test_what_is_deleted_while_it_is_computed_leaves_nothing(
    house: House, bucket: Bucket, tmp_path: Path
) -> None:
    names = house.submit(*[GOOD] * 4)
    orders = worker(house, bucket, stall="conclude", touch=str(tmp_path))
    house.wait(lambda: (tmp_path / "conclude").exists())
    for name in names[:2]:
        house.service.delete(name, OWNER)
    assert len(bucket.objects()) == 2
    (tmp_path / "go").touch()
    house.wait_until_final(names[2:])
    house.wait(lambda: house.started() == 0)
    assert house.end(orders) == 0
    assert len(bucket.objects()) == 2 * 3
    for name in names[2:]:
        house.service.delete(name, OWNER)
    assert bucket.objects() == []
    house.nothing_is_left()
