"""Which workers are alive, and whether they may take jobs, in Redis."""

from __future__ import annotations

import time
from typing import cast

from redis import Redis
from redis.client import Pipeline
from rq.suspension import WORKERS_SUSPENDED

from app.contract import records
from app.contract.schemas import WorkerInfo

_SICK_LIFE = 600  # s; longer than a worker that fails at start is left alone before the next try


class WorkerRegistry:
    """The warm workers, as they announce themselves. Safe to share between threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def announce(self, worker: WorkerInfo, ttl: int) -> None:
        """Say that `worker` is alive and warm for the next `ttl` seconds."""
        now = time.time()
        with self._redis.pipeline() as pipeline:
            pipeline.set(records.worker_key(worker.name), worker.model_dump_json(), ex=ttl)
            pipeline.set(records.MODEL_KEY, records.model_tag(worker.model), ex=ttl)
            pipeline.zadd(records.WORKERS_KEY, {worker.name: now + ttl})
            pipeline.zremrangebyscore(records.WORKERS_KEY, "-inf", now)
            pipeline.execute()

    def withdraw(self, name: str) -> None:
        """Say that the worker takes no more work."""
        with self._redis.pipeline() as pipeline:
            pipeline.delete(records.worker_key(name))
            pipeline.zrem(records.WORKERS_KEY, name)
            pipeline.execute()

    def report_sick(self, reason: str) -> None:
        """Say for ten minutes that a worker's model does not answer as it should."""
        self._redis.set(records.SICK_KEY, reason, ex=_SICK_LIFE)

    def live(self) -> list[WorkerInfo]:
        """The workers that are warm and were heard of lately."""
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
        """Whether workers are to take no jobs (`rq suspend`); what is accepted waits."""
        return bool(self._redis.exists(WORKERS_SUSPENDED))


def ask_suspended(pipeline: Pipeline) -> None:
    """Add the question whether workers are to take no jobs (`rq suspend`) to `pipeline`."""
    pipeline.exists(WORKERS_SUSPENDED)


def count_workers(pipeline: Pipeline) -> None:
    """Add the question how many workers are alive and warm to `pipeline`."""
    pipeline.zcount(records.WORKERS_KEY, time.time(), "+inf")


def ask_sick(pipeline: Pipeline) -> None:
    """Add the question whether a worker's model was found sick lately to `pipeline`."""
    pipeline.exists(records.SICK_KEY)
