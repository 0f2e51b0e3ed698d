"""The RQ queue as the API sees it: enqueue a detection's id, look at the backlog."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from app.contract.records import WAITING_KEY
from app.contract.schemas import JOB_FUNCTION
from app.contract.scripts import BACKLOG, DETECTIONS
from app.contract.settings import Settings

RESULT_TTL = 600  # s; only RQ's own tools read it, the answer is in our record
FAILURE_TTL = 86_400  # s; RQ's default is one year
JOB_TIMEOUT = 600  # s


class JobQueue:
    """Jobs whose one argument is a detection id, in JSON. Safe to share between threads."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._ttl = settings.queue_ttl
        self._queue = Queue(
            settings.queue,
            connection=redis,
            serializer=JSONSerializer,
            default_timeout=JOB_TIMEOUT,
        )

    def enqueue(
        self, pipeline: Pipeline, detection_id: str, meta: Mapping[str, str] | None = None
    ) -> None:
        """Add the job of a detection to `pipeline`; the job's id is the detection's.

        `Retry` has no interval, so that no scheduler is needed: it lets the work of a killed
        worker be done by another one. Its `meta` is what `tracing.meta` made of the request.
        """
        self._queue.enqueue_call(
            JOB_FUNCTION,
            args=(detection_id,),
            job_id=detection_id,
            ttl=self._ttl,
            result_ttl=RESULT_TTL,
            failure_ttl=FAILURE_TTL,
            retry=Retry(max=2),
            description=detection_id,
            meta=dict(meta or {}),
            pipeline=pipeline,
        )

    def withdraw(self, pipeline: Pipeline, detection_id: str) -> None:
        """Add to `pipeline` what takes a job that waits off the queue.

        A worker that has just popped it finds nothing to do.
        """
        pipeline.lrem(self._queue.key, 1, detection_id)
        pipeline.delete(Job.key_for(detection_id))


class Backlog(NamedTuple):
    """What waits in a queue."""

    depth: int
    """Number of jobs."""
    oldest_age: float
    """Seconds that the oldest of them has waited; 0 with an empty queue."""


def queue_key(queue: str) -> str:
    """Key of the list in which the RQ queue of that name keeps the ids that wait."""
    return f"{Queue.redis_queue_namespace_prefix}{queue}"


def ask_detections(pipeline: Pipeline, settings: Settings) -> None:
    """Add the question for the detections that wait to `pipeline`."""
    keys = queue_key(settings.queue), WAITING_KEY
    DETECTIONS(keys, [time.time(), settings.queue_ttl], client=pipeline)


def read_detections(reply: list[Any]) -> Backlog:
    """The backlog in the reply to `ask_detections`."""
    depth, since = reply
    return Backlog(depth, 0.0 if since is None else max(0.0, time.time() - float(since)))


def ask_backlog(pipeline: Pipeline, queue: str) -> None:
    """Add the question for the backlog of an RQ queue, first in, first out, to `pipeline`."""
    BACKLOG([queue_key(queue)], client=pipeline)


def read_backlog(reply: list[Any]) -> Backlog:
    """The backlog in the reply to `ask_backlog`."""
    depth, enqueued_at = reply
    if enqueued_at is None:
        return Backlog(depth, 0.0)
    return Backlog(depth, max(0.0, time.time() - _parse_time(enqueued_at.decode())))


def _parse_time(text: str) -> float:
    """RQ writes UTC times as `2026-01-31T12:00:00.000000Z`."""
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
