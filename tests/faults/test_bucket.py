"""Outages of the bucket, and orphaned objects in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.contract.blobs import StorageUnavailableError
from tests.buckets import Bucket
from tests.faults.stack import GOOD, OWNER, Stack, opened
from tests.faults.worker import WorkerOptions

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def stack(redis_url: str, bucket: Bucket, tmp_path: Path) -> Iterator[Stack]:
    with opened(redis_url, tmp_path, bucket.url) as built:
        built.redis.flushall()
        yield built


def worker(stack: Stack, bucket: Bucket, **options: object) -> WorkerOptions:
    return stack.worker(store=bucket.url, environment=bucket.server.environment, **options)


def test_worker_waits_during_a_short_outage(stack: Stack, bucket: Bucket) -> None:
    names = stack.submit(*[GOOD] * 30)
    options = worker(stack, bucket, max_batch=2, sleep={"forward": 0.1})
    stack.wait(lambda: len(stack.finished) > 4)
    bucket.server.link.cut()
    stack.wait(lambda: "storage_unavailable" in stack.log())
    with pytest.raises(StorageUnavailableError):
        stack.submit(GOOD)
    assert stack.process(options).is_alive()
    bucket.server.link.open()
    stack.wait_until_final(names)
    stack.wait(lambda: stack.started() == 0)
    assert stack.retries_left(names) == {2}
    assert stack.count(options) == 30
    assert stack.count(options, "failed") == 0
    assert "job_put_back" not in stack.log()
    assert stack.end(options) == 0
    stack.assert_outcome("short outage of the bucket", names, succeeded=30)
    assert len(bucket.objects()) == 3 * 30


def test_long_outage_uses_no_retries(stack: Stack, bucket: Bucket) -> None:
    names = stack.submit(*[GOOD] * 12)
    options = worker(stack, bucket, max_batch=2, retry_for=0.2, sleep={"forward": 0.1})
    stack.wait(lambda: len(stack.finished) > 2)
    bucket.server.link.cut()
    stack.wait(
        lambda: stack.log().count("job_put_back") > 3 * 12
    )  # more often than there are retries
    bucket.server.link.open()
    stack.wait_until_final(names)
    stack.wait(lambda: stack.started() == 0)
    assert stack.retries_left(names) == {2}
    assert stack.count(options, "failed") == 0
    assert stack.end(options) == 0
    stack.assert_outcome("long outage of the bucket", names, succeeded=12)


def test_sigterm_during_an_outage_puts_jobs_back(stack: Stack, bucket: Bucket) -> None:
    names = stack.submit(*[GOOD] * 10)
    bucket.server.link.cut()
    options = worker(stack, bucket)
    stack.wait(lambda: "storage_unavailable" in stack.log())
    assert stack.end(options) == 0
    assert stack.started() == 0
    assert stack.redis.llen(stack.queue.key) == 10
    assert stack.retries_left(names) == {2}
    bucket.server.link.open()
    assert stack.end(worker(stack, bucket, burst=True), terminate=False) == 0
    stack.assert_outcome("before and after the outage", names, succeeded=10)


def test_deletion_during_processing_leaves_no_objects(
    stack: Stack, bucket: Bucket, tmp_path: Path
) -> None:
    names = stack.submit(*[GOOD] * 4)
    options = worker(stack, bucket, stall="conclude", touch=str(tmp_path))
    stack.wait(lambda: (tmp_path / "conclude").exists())
    for name in names[:2]:
        stack.service.delete(name, OWNER)
    assert len(bucket.objects()) == 2
    (tmp_path / "go").touch()
    stack.wait_until_final(names[2:])
    stack.wait(lambda: stack.started() == 0)
    assert stack.end(options) == 0
    assert len(bucket.objects()) == 2 * 3
    for name in names[2:]:
        stack.service.delete(name, OWNER)
    assert bucket.objects() == []
    stack.assert_queue_empty()
