"""The RQ queue of detections: jobs and backlog."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job
from rq.registry import FinishedJobRegistry
from rq.serializers import JSONSerializer

from app.contract.records import WAITING_KEY
from app.contract.schemas import JOB_FUNCTION
from app.contract.scripts import BACKLOG, DETECTIONS, PLACES
from app.contract.settings import Settings

RESULT_TTL = 600  # s; read by RQ's own tools only, the result is in the record
FAILURE_TTL = 86_400  # s; RQ's default is one year
JOB_TIMEOUT = 600  # s


class JobQueue:
    """Jobs whose only argument is a detection id, in JSON. Thread-safe."""

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
        """Add the commands that enqueue a detection to `pipeline`; its id is also the job's.

        `Retry` lets another worker take over the job of a killed worker; it has no interval, so
        that no scheduler is needed. `meta` comes from `tracing.meta`.
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
        """Add the commands that remove a waiting job to `pipeline`."""
        pipeline.lrem(self._queue.key, 1, detection_id)
        pipeline.delete(Job.key_for(detection_id))


class Place(NamedTuple):
    """Place of a detection in the queue."""

    position: int
    """1 is next."""
    wait: float | None
    """Estimated time until a worker takes it, s; None if there is nothing to estimate from."""


def places(redis: Redis, settings: Settings, arrivals: Mapping[str, float]) -> dict[str, Place]:
    """Places of waiting detections, in one round trip.

    The rate of the workers is that since the arrival of a detection, for at most half a minute:
    while it waits they are busy.

    Args:
        redis: connected client.
        settings: settings of this process.
        arrivals: times of arrival by id, s since epoch.
    """
    registry = FinishedJobRegistry.key_template.format(settings.queue)
    arguments = [time.time(), RESULT_TTL, *(word for one in arrivals.items() for word in one)]
    keys = [queue_key(settings.queue), registry]
    found = PLACES(keys, arguments, client=redis)
    return {
        name: Place(position, float(wait) if wait else None)
        for name, (position, wait) in zip(arrivals, found, strict=True)
        if position
    }


class Backlog(NamedTuple):
    """Waiting jobs of a queue."""

    depth: int
    """Number of jobs."""
    oldest_age: float
    """Waiting time of the oldest job in seconds; 0 if the queue is empty."""


def queue_key(queue: str) -> str:
    """Key of the list with the waiting job ids of an RQ queue."""
    return f"{Queue.redis_queue_namespace_prefix}{queue}"


def ask_detections(pipeline: Pipeline, settings: Settings) -> None:
    """Add the command that reads the backlog of detections to `pipeline`."""
    keys = queue_key(settings.queue), WAITING_KEY
    DETECTIONS(keys, [time.time(), settings.queue_ttl], client=pipeline)


def read_detections(reply: list[Any]) -> Backlog:
    """Parse the reply to `ask_detections`."""
    depth, since = reply
    return Backlog(depth, 0.0 if since is None else max(0.0, time.time() - float(since)))


def ask_backlog(pipeline: Pipeline, queue: str) -> None:
    """Add the command that reads the backlog of a FIFO queue of RQ to `pipeline`."""
    BACKLOG([queue_key(queue)], client=pipeline)


def read_backlog(reply: list[Any]) -> Backlog:
    """Parse the reply to `ask_backlog`."""
    depth, enqueued_at = reply
    if enqueued_at is None:
        return Backlog(depth, 0.0)
    return Backlog(depth, max(0.0, time.time() - _parse_time(enqueued_at.decode())))


def _parse_time(text: str) -> float:
    """Parse a UTC time in RQ's format, `2026-01-31T12:00:00.000000Z`, to seconds since epoch."""
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
