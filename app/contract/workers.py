"""Registry of live workers in Redis, and suspension of the queue."""

from __future__ import annotations

import time
from typing import cast

from redis import Redis
from redis.client import Pipeline
from rq.suspension import WORKERS_SUSPENDED

from app.contract import records
from app.contract.models import WorkerInfo

_REPORT_LIFE = 600  # s; longer than the restart delay of a failing worker


class WorkerRegistry:
    """Registry of warm workers. Thread-safe."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def announce(self, worker: WorkerInfo, ttl: int) -> None:
        """Register `worker` as live and warm for `ttl` seconds."""
        now = time.time()
        with self._redis.pipeline() as pipeline:
            pipeline.set(records.worker_key(worker.name), worker.model_dump_json(), ex=ttl)
            pipeline.set(records.MODEL_KEY, records.model_tag(worker.model), ex=ttl)
            pipeline.zadd(records.WORKERS_KEY, {worker.name: now + ttl})
            pipeline.zremrangebyscore(records.WORKERS_KEY, "-inf", now)
            pipeline.execute()

    def withdraw(self, name: str) -> None:
        """Remove a worker that takes no more work."""
        with self._redis.pipeline() as pipeline:
            pipeline.delete(records.worker_key(name))
            pipeline.zrem(records.WORKERS_KEY, name)
            pipeline.execute()

    def report_sick(self, reason: str) -> None:
        """Report a failed model check for ten minutes."""
        self._redis.set(records.SICK_KEY, reason, ex=_REPORT_LIFE)

    def report_device_failure(self, reason: str) -> None:
        """Report a failed device for ten minutes."""
        self._redis.set(records.DEVICE_FAILED_KEY, reason, ex=_REPORT_LIFE)

    def live(self) -> list[WorkerInfo]:
        """The live workers."""
        names = cast(
            list[bytes], self._redis.zrangebyscore(records.WORKERS_KEY, time.time(), "+inf")
        )
        if not names:
            return []
        infos = cast(
            list[bytes | None], self._redis.mget([records.worker_key(n.decode()) for n in names])
        )
        return [WorkerInfo.model_validate_json(info) for info in infos if info is not None]

    def are_suspended(self) -> bool:
        """Whether the queue is suspended (`rq suspend`), so that workers take no jobs."""
        return bool(self._redis.exists(WORKERS_SUSPENDED))


def ask_suspended(pipeline: Pipeline) -> None:
    """Add the command that reads whether the queue is suspended to `pipeline`."""
    pipeline.exists(WORKERS_SUSPENDED)


def count_workers(pipeline: Pipeline) -> None:
    """Add the command that counts live workers to `pipeline`."""
    pipeline.zcount(records.WORKERS_KEY, time.time(), "+inf")


def ask_failures(pipeline: Pipeline) -> None:
    """Add the commands that read whether a model check or a device failed recently."""
    pipeline.exists(records.SICK_KEY)
    pipeline.exists(records.DEVICE_FAILED_KEY)
