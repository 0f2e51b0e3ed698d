"""Removal of deleted and expired data from Redis's append-only file, within a time limit.

Deleted and expired keys stay in the file until Redis rewrites it, which it does by itself only
when the file has doubled in size.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio
import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.contract.records import ERASURE_KEY

_CHECKS = 20  # per interval between rewrites

log = structlog.get_logger()


class AofRewriter:
    """Regular rewrites of the append-only file, by one process at a time.

    Args:
        redis: connected client.
        within: maximum time in seconds that deleted data stays in the file; a rewrite starts
            twice in this time, so that it has the other half to finish.
    """

    def __init__(self, redis: Redis, within: int) -> None:
        self._redis = redis
        self._interval = within / 2
        self._check_interval = self._interval / _CHECKS

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Rewrite regularly while the context lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._run)
            yield
            group.cancel_scope.cancel()

    def rewrite_if_due(self) -> None:
        """Start a rewrite if the interval has passed.

        Raises:
            RedisError: If Redis is unavailable or refuses the rewrite.
        """
        # The lock is short, so that another process takes over if this one ends.
        if not self._redis.set(ERASURE_KEY, b"", nx=True, px=_milliseconds(self._check_interval)):
            return
        file = self._redis.info("persistence")
        if not file.get("aof_enabled"):
            return
        if file.get("aof_last_bgrewrite_status") != "ok":
            log.error("erasure_failed", error="Redis could not rewrite its append-only file")
        if not file.get("aof_rewrite_in_progress"):  # a running one may miss recent deletions
            self._redis.bgrewriteaof()
            self._redis.set(ERASURE_KEY, b"", px=_milliseconds(self._interval))

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.rewrite_if_due)
            except RedisError as error:
                log.error("erasure_failed", error=str(error))
            await asyncio.sleep(self._check_interval)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
