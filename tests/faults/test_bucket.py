"""The bucket goes away and comes back; and nothing stays in it that nobody knows of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.contract.blobs import StorageUnavailableError
from tests.buckets import Bucket
from tests.faults.stack import GOOD, OWNER, Stack, opened
from tests.faults.worker import Orders

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def stack(redis_url: str, bucket: Bucket, tmp_path: Path) -> Iterator[Stack]:
    with opened(redis_url, tmp_path, bucket.url) as built:
        built.redis.flushall()
        yield built


def worker(stack: Stack, bucket: Bucket, **orders: object) -> Orders:
    return stack.worker(store=bucket.url, environment=bucket.server.environment, **orders)


def test_an_outage_in_the_midst_of_batches_is_waited_out(stack: Stack, bucket: Bucket) -> None:
    names = stack.submit(*[GOOD] * 60)
    orders = worker(stack, bucket, sleep={"forward": 0.1})
    stack.wait(lambda: len(stack.finished) > 10)
    bucket.server.link.cut()
    stack.wait(lambda: "storage_unavailable" in stack.log())
    with pytest.raises(StorageUnavailableError):
        stack.submit(GOOD)
    assert stack.process(orders).is_alive()
    bucket.server.link.open()
    stack.wait_until_final(names)
    stack.wait(lambda: stack.started() == 0)
    assert stack.tries_left(names) == {2}
    assert stack.count(orders) == 60
    assert stack.count(orders, "failed") == 0
    assert "job_put_back" not in stack.log()
    assert stack.end(orders) == 0
    stack.account("the bucket was away", names, succeeded=60)
    assert len(bucket.objects()) == 3 * 60


def test_a_long_outage_costs_no_try(stack: Stack, bucket: Bucket) -> None:
    names = stack.submit(*[GOOD] * 20)
    orders = worker(stack, bucket, retry_for=0.2, sleep={"forward": 0.1})
    stack.wait(lambda: len(stack.finished) > 2)
    bucket.server.link.cut()
    stack.wait(lambda: stack.log().count("job_put_back") > 3 * 20)  # each often enough to fail
    bucket.server.link.open()
    stack.wait_until_final(names)
    stack.wait(lambda: stack.started() == 0)
    assert stack.tries_left(names) == {2}
    assert stack.count(orders, "failed") == 0
    assert stack.end(orders) == 0
    stack.account("the bucket was away for long", names, succeeded=20)


def test_sigterm_in_an_outage_puts_back_what_is_in_hand(stack: Stack, bucket: Bucket) -> None:
    names = stack.submit(*[GOOD] * 10)
    bucket.server.link.cut()
    orders = worker(stack, bucket)
    stack.wait(lambda: "storage_unavailable" in stack.log())
    assert stack.end(orders) == 0
    assert stack.started() == 0
    assert stack.redis.llen(stack.queue.key) == 10
    assert stack.tries_left(names) == {2}
    bucket.server.link.open()
    assert stack.end(worker(stack, bucket, burst=True), terminate=False) == 0
    stack.account("before and after the outage", names, succeeded=10)


def test_what_is_deleted_while_it_is_computed_leaves_nothing(
    stack: Stack, bucket: Bucket, tmp_path: Path
) -> None:
    names = stack.submit(*[GOOD] * 4)
    orders = worker(stack, bucket, stall="conclude", touch=str(tmp_path))
    stack.wait(lambda: (tmp_path / "conclude").exists())
    for name in names[:2]:
        stack.service.delete(name, OWNER)
    assert len(bucket.objects()) == 2
    (tmp_path / "go").touch()
    stack.wait_until_final(names[2:])
    stack.wait(lambda: stack.started() == 0)
    assert stack.end(orders) == 0
    assert len(bucket.objects()) == 2 * 3
    for name in names[2:]:
        stack.service.delete(name, OWNER)
    assert bucket.objects() == []
    stack.nothing_is_left()
