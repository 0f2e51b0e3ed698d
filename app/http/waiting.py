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

from app.contract.store import FINISHED_CHANNEL

MAX_WAIT = 60  # s
CHECK_INTERVAL = 2.0  # s; a waiter looks at the record itself this often, should a message be lost
_RECONNECT_DELAY = 1.0  # s
_REMEMBERED = 1000  # detections, of some 2 kB each
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)

log = structlog.get_logger()


def preferred_wait(headers: list[str]) -> int | None:
    """Seconds asked for by `Prefer: wait=N` (RFC 7240, section 4.3), at most 60.

    Args:
        headers: the values of all `Prefer` headers.
    """
    found = _WAIT.search(",".join(headers))
    return min(int(found.group(1)), MAX_WAIT) if found else None


class Expectation:
    """What somebody who waits for detections has heard of them."""

    def __init__(self) -> None:
        self._endings: dict[str, bytes] = {}
        self._woken = asyncio.Event()

    def hear(self, detection_id: str, ending: bytes) -> None:
        """Wake who waits: one of the detections has ended."""
        self._endings[detection_id] = ending
        self._woken.set()

    async def news(self, seconds: float) -> dict[str, bytes]:
        """The endings that were not told yet, by the detections' ids.

        Args:
            seconds: to wait if there are none; none come if there still are none then.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._woken.set)
        await self._woken.wait()
        timer.cancel()
        self._woken.clear()
        endings, self._endings = self._endings, {}
        return endings


class FinishedEvents:
    """One subscription a process; tells those who wait for a detection how it has ended.

    It remembers what it has heard lately: who waits for one that has just ended need not ask.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._heard: dict[str, bytes] = {}  # in their order
        self._waiting: defaultdict[str, set[Expectation]] = defaultdict(set)

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
    def expect(self, detection_ids: Collection[str]) -> Iterator[Expectation]:
        """What is heard of the detections: that they became final, or were deleted."""
        expectation = Expectation()
        for detection_id in detection_ids:
            self._waiting[detection_id].add(expectation)
            if detection_id in self._heard:
                expectation.hear(detection_id, self._heard[detection_id])
        try:
            yield expectation
        finally:
            for detection_id in detection_ids:
                waiting = self._waiting[detection_id]
                waiting.discard(expectation)
                if not waiting:
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
                        self._hear(message["data"])
            except RedisError as error:
                log.warning("finished_events_lost", error=str(error))
                await asyncio.sleep(_RECONNECT_DELAY)

    def _hear(self, message: bytes) -> None:
        name, _, ending = message.partition(b" ")
        detection_id = name.decode("ascii", "replace")
        self._heard[detection_id] = ending
        if len(self._heard) > _REMEMBERED:
            del self._heard[next(iter(self._heard))]
        for expectation in self._waiting.get(detection_id, ()):
            expectation.hear(detection_id, ending)
