"""`gamma worker` with Redis: batches, invalid pictures, hostile payloads, dead workers."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, SimpleWorker

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.jobs import JobQueue
from app.contract.schemas import Detection, ErrorCode, Status
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Submission
from app.http.service import Service
from app.http.waiting import FinishedEvents
from pictures.findings import View
from tests.conftest import encode, free_port, photo
from tests.forks import gamma
from worker.scripts import MAX_DEATHS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]


class Stack:
    """Redis and the API's side of the queue, without HTTP."""

    def __init__(self, url: str, model: Path) -> None:
        self.url = url
        self.model = model
        self.settings = Settings(redis_url=url, cache=False)
        self.redis = connect(url)
        self.store = Store(self.redis)
        self.jobs = JobQueue(self.redis, self.settings)
        self.queue = Queue(self.settings.queue, connection=self.redis, serializer=JSONSerializer)
        self.service = Service(self.settings, self.store, self.jobs, FinishedEvents(url))

    def submit(self, data: bytes) -> str:
        return self.service.submit(Submission("owner", data, View.CENTER)).id

    def record(self, name: str) -> Detection:
        detection = self.store.get(name)
        assert detection is not None
        return detection

    def work(self) -> str:
        """Run a worker until the queue is empty; returns its log."""
        ended = gamma(
            *("worker", "--burst", "--checkpoint", str(self.model)),
            GAMMA_REDIS_URL=self.url,
            GAMMA_METRICS_PORT=str(free_port()),
            GAMMA_MAX_BATCH="4",
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    def job(self, name: str) -> Job:
        return Job.fetch(name, connection=self.redis, serializer=JSONSerializer)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis"), 2**28) as (url, _):
        yield url


@pytest.fixture
def stack(redis_url: str, small_model: Path) -> Iterator[Stack]:
    built = Stack(redis_url, small_model)
    built.redis.flushall()
    yield built
    built.redis.close()


def test_invalid_picture_fails_alone_at_any_position_in_a_batch(stack: Stack) -> None:
    invalid = encode(photo(256, 256), quality=90)[:5000]
    batches = [
        [stack.submit(invalid if at == place else encode(photo(256, 256, at))) for at in range(4)]
        for place in range(4)
    ]
    log = stack.work()
    assert max(int(found) for found in re.findall(r"pictures=(\d+)", log)) > 1, log
    for place, names in enumerate(batches):
        for at, name in enumerate(names):
            record = stack.record(name)
            if at == place:
                assert record.status is Status.FAILED
                assert record.error is not None
                assert record.error.code is ErrorCode.IMAGE_TRUNCATED
            else:
                assert record.status is Status.SUCCEEDED, record.error
    # An invalid picture is not a failed job: RQ does not retry it.
    assert FinishedJobRegistry(queue=stack.queue).get_job_count(cleanup=False) == 16
    assert FailedJobRegistry(queue=stack.queue).get_job_count(cleanup=False) == 0
    assert stack.job(batches[0][0]).return_value() == "failed"
    assert stack.job(batches[0][1]).return_value() == "succeeded"
    assert stack.redis.keys("rq:wip:*") == []
    assert stack.redis.keys("rq:execution*") == []
    assert stack.redis.keys("*intermediate*") == []


def test_foreign_payloads_are_not_executed(stack: Stack, tmp_path) -> None:
    trap = tmp_path / "sprung"
    options = {"result_ttl": 60, "failure_ttl": 60}
    stack.queue.enqueue_call("os.system", args=(f"touch {trap}",), job_id="command", **options)
    stack.queue.enqueue_call("gamma.detect", args=("another",), job_id="other", **options)
    stack.queue.enqueue_call(
        "gamma.detect",
        args=("callback",),
        job_id="callback",
        on_success=None,
        **options,
    )
    for field in ("success_callback_name", "failure_callback_name", "stopped_callback_name"):
        stack.redis.hset("rq:job:callback", field, "os.abort")
        stack.redis.hset("rq:job:command", field, "os.abort")

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {trap}",)

    stack.queue.enqueue_call("gamma.detect", args=("pickle",), job_id="pickle", **options)
    stack.redis.hset("rq:job:pickle", "data", pickle.dumps(Bomb()))
    good = stack.submit(encode(photo(128, 128)))
    stack.work()
    assert not trap.exists()
    assert stack.record(good).status is Status.SUCCEEDED
    for name in ("command", "other", "pickle"):
        assert stack.job(name).get_status().value == "failed", name
    assert stack.job("callback").return_value() == "skipped"


def test_detections_without_work_to_do_are_ended(stack: Stack) -> None:
    names = [stack.submit(encode(photo(128, 128, seed))) for seed in range(4)]
    finished, gone, late, lost = names
    stack.redis.hset(f"gamma:detection:{finished}", "status", "succeeded")
    stack.redis.delete(f"gamma:detection:{gone}")
    stack.redis.hset(f"gamma:detection:{late}", "deadline", time.time() - 1)
    stack.redis.delete(f"gamma:image:owner:{stack.record(lost).image.sha256}")
    assert "crops=" not in stack.work()
    assert stack.record(late).status is Status.EXPIRED
    record = stack.record(lost)
    assert record.status is Status.FAILED, "it would be `processing` until it expires"
    assert record.error is not None
    assert record.error.code is ErrorCode.PROCESSING_FAILED
    results = [stack.job(name).return_value() for name in names]
    assert results == ["skipped", "skipped", "skipped", "failed"]


def test_job_of_a_dead_worker_is_retried_by_another(stack: Stack) -> None:
    name = stack.submit(encode(photo(128, 128)))
    abandon(stack, name)
    assert stack.record(name).status is Status.PROCESSING
    stack.work()
    assert stack.record(name).status is Status.SUCCEEDED


def test_job_that_crashed_too_many_workers_fails(stack: Stack) -> None:
    name = stack.submit(encode(photo(128, 128)))
    stack.redis.hset(f"rq:job:{name}", "deaths", MAX_DEATHS)
    abandon(stack, name)
    stack.work()
    record = stack.record(name)
    assert record.status is Status.FAILED
    assert record.error is not None
    assert record.error.code is ErrorCode.PROCESSING_FAILED
    assert name in FailedJobRegistry(queue=stack.queue).get_job_ids(cleanup=False)


def abandon(stack: Stack, name: str) -> None:
    """Leave a job in the state of a worker that was killed while processing it."""
    assert stack.redis.lmove(stack.queue.key, stack.queue.intermediate_queue_key) == name.encode()
    job = stack.job(name)
    with stack.redis.pipeline() as pipeline:
        Execution.create(job, ttl=60, pipeline=pipeline, worker_name="dead")
        job.prepare_for_execution("dead", pipeline)
        pipeline.lrem(stack.queue.intermediate_queue_key, 1, name)
        pipeline.execute()
    (entry,) = stack.redis.zrange("rq:wip:gamma", 0, -1)
    stack.redis.zadd("rq:wip:gamma", {entry: datetime.now(UTC).timestamp() - 1})
    assert stack.store.start([name])


def test_private_names_of_rq_exist() -> None:
    names = {
        Job: (
            "fetch_many",
            "key_for",
            "restore",
            "retry",
            "should_retry",
        ),
        Execution: ("composite_key",),
        ExecutionRegistry: ("key_template",),
        Result: ("get_key",),
        Queue: (
            "acquire_maintenance_lock",
            "dequeue_any",
            "registry_cleaning_key",
            "started_job_registry",
        ),
        SimpleWorker: (
            "_finalize_failure",
            "bootstrap",
            "check_for_suspension",
            "dequeue_job_and_maintain_ttl",
            "execute_job",
            "executions_key",
            "heartbeat",
            "run_maintenance_tasks",
            "serialize",
            "set_state",
            "should_run_maintenance_tasks",
            "teardown",
        ),
    }
    for kind, used in names.items():
        for name in used:
            assert hasattr(kind, name), (kind, name)
    attributes = inspect.getsource(BaseWorker.__init__)
    for name in ("_shutdown_requested_date", "_state", "_stop_requested", "default_result_ttl"):
        assert f"self.{name}" in attributes, name
    loop = inspect.getsource(BaseWorker.work)
    for name in ("_stop_requested", "dequeue_job_and_maintain_ttl", "execute_job", "teardown"):
        assert f"self.{name}" in loop, name
    assert "enqueue_at_front_on_retry" in inspect.getsource(Job.retry)
