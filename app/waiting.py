"""`Prefer: wait`: requests that sleep until a detection is final, without holding a thread."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator

import anyio
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from app.store import FINISHED_CHANNEL

MAX_WAIT = 60  # s
CHECK_INTERVAL = 2.0  # s; a waiter looks at the record itself this often, should a message be lost
_RECONNECT_DELAY = 1.0  # s
_REMEMBERED = 10_000  # detections
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)

log = structlog.get_logger()


def preferred_wait(headers: list[str]) -> int | None:
    """Seconds asked for by `Prefer: wait=N` (RFC 7240, section 4.3), at most 60.

    Args:
        headers: the values of all `Prefer` headers.
    """
    found = _WAIT.search(",".join(headers))
    return min(int(found.group(1)), MAX_WAIT) if found else None


class FinishedEvents:
    """One subscription a process; wakes those who wait for a detection.

    It remembers those it has heard of lately: who waits for one that has just ended need not ask.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._heard: dict[str, None] = {}  # in their order
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen as long as the context lasts."""
        # A cancel scope cancels until the task has ended; a single Task.cancel() can be lost
        # inside the Redis client while it connects.
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            yield
            group.cancel_scope.cancel()

    @contextlib.contextmanager
    def expect(self, detection_ids: Collection[str]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of the detections becomes final or is deleted."""
        event = asyncio.Event()
        if not self._heard.keys().isdisjoint(detection_ids):
            event.set()
        for detection_id in detection_ids:
            self._waiting[detection_id].add(event)
        try:
            yield event
        finally:
            for detection_id in detection_ids:
                events = self._waiting[detection_id]
                events.discard(event)
                if not events:
                    del self._waiting[detection_id]

    async def _listen(self) -> None:
        while True:
            try:
                async with (
                    redis.asyncio.Redis.from_url(self._url) as client,
                    client.pubsub(ignore_subscribe_messages=True) as channel,
                ):
                    await channel.subscribe(FINISHED_CHANNEL)
                    async for message in channel.listen():
                        self._hear(message["data"].decode())
            except RedisError as error:
                log.warning("finished_events_lost", error=str(error))
                await asyncio.sleep(_RECONNECT_DELAY)

    def _hear(self, detection_id: str) -> None:
        self._heard[detection_id] = None
        if len(self._heard) > _REMEMBERED:
            del self._heard[next(iter(self._heard))]
        for event in self._waiting.get(detection_id, ()):
            event.set()
