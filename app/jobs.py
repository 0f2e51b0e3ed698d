"""The RQ queue as the API sees it: enqueue a detection's id, look at the backlog."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from app.schemas import JOB_FUNCTION
from app.settings import Settings

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
        self._redis = redis

    def enqueue(self, pipeline: Pipeline, detection_id: str) -> None:
        """Add the job of a detection to `pipeline`; the job's id is the detection's.

        `Retry` has no interval, so that no scheduler is needed: it lets the work of a killed
        worker be done by another one.
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
            pipeline=pipeline,
        )

    def depth(self) -> int:
        """Number of jobs that wait."""
        return self._redis.llen(self._queue.key)

    def oldest_age(self) -> float:
        """Seconds that the job at the head of the queue has waited; 0 with an empty queue."""
        head = cast(list[bytes], self._redis.lrange(self._queue.key, 0, 0))
        if not head:
            return 0.0
        key = Job.key_for(head[0].decode())
        enqueued_at = cast(bytes | None, self._redis.hget(key, "enqueued_at"))
        if enqueued_at is None:
            return 0.0
        return max(0.0, time.time() - _parse_time(enqueued_at.decode()))


def _parse_time(text: str) -> float:
    """RQ writes UTC times as `2026-01-31T12:00:00.000000Z`."""
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
