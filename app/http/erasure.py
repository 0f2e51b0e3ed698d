"""What Redis has forgotten, its append-only file forgets too, within a stated time.

A key that was deleted or has expired stands in the file until Redis writes the file anew, which
it does by itself only once the file has doubled.
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

_LOOKS = 20  # in the time from one rewrite to the next

log = structlog.get_logger()


class Erasure:
    """Rewrites of the append-only file, of which one process of all at a time takes care.

    Args:
        redis: connected.
        within: seconds after which nothing that was deleted is in the file; a rewrite is begun
            twice in this time, so that it has the other half to end.
    """

    def __init__(self, redis: Redis, within: int) -> None:
        self._redis = redis
        self._pause = within / 2
        self._look = self._pause / _LOOKS

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Rewrite as long as the context lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._run)
            yield
            group.cancel_scope.cancel()

    def rewrite_if_due(self) -> None:
        """Begin a rewrite, unless one was begun lately."""
        # Claimed for a moment only: should this process end, another one goes on.
        if not self._redis.set(ERASURE_KEY, b"", nx=True, px=_milliseconds(self._look)):
            return
        file = self._redis.info("persistence")
        if not file.get("aof_enabled"):
            return
        if file.get("aof_last_bgrewrite_status") != "ok":
            log.error("erasure_failed", error="Redis could not rewrite its append-only file")
        if not file.get("aof_rewrite_in_progress"):  # else it was begun before what is deleted now
            self._redis.bgrewriteaof()
            self._redis.set(ERASURE_KEY, b"", px=_milliseconds(self._pause))

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.rewrite_if_due)
            except RedisError as error:
                log.error("erasure_failed", error=str(error))
            await asyncio.sleep(self._look)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
