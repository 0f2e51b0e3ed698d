"""`Prefer: wait`: requests that wait for a detection to finish, without blocking a thread."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator

import anyio
import structlog
from redis.exceptions import RedisError

from app.contract.client import connect_async
from app.contract.store import FINISHED_CHANNEL

MAX_WAIT = 60  # s
CHECK_INTERVAL = 2.0  # s, between reads of the record, in case a message was lost
_RECONNECT_DELAY = 1.0  # s
_MAX_RECENT = 1000  # detections of about 2 kB each
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)

log = structlog.get_logger()


def preferred_wait(headers: list[str]) -> int | None:
    """Seconds in `Prefer: wait=N` (RFC 7240, 4.3), limited to 60; None if it is absent.

    Args:
        headers: values of all `Prefer` fields.
    """
    found = _WAIT.search(",".join(headers))
    return min(int(found.group(1)), MAX_WAIT) if found else None


class Subscription:
    """Messages for one request that waits for detections."""

    def __init__(self) -> None:
        self._endings: dict[str, bytes] = {}
        self._woken = asyncio.Event()

    def notify(self, detection_id: str, ending: bytes) -> None:
        """Add the message that a detection has ended, and wake the request."""
        self._endings[detection_id] = ending
        self._woken.set()

    async def receive(self, seconds: float) -> dict[str, bytes]:
        """New messages by detection id; empty if there are none within `seconds`."""
        timer = asyncio.get_running_loop().call_later(seconds, self._woken.set)
        await self._woken.wait()
        timer.cancel()
        self._woken.clear()
        endings, self._endings = self._endings, {}
        return endings


class FinishedEvents:
    """Subscription of a process to finished detections; notifies the requests that wait for them.

    Recent messages are kept for requests that start to wait after the detection has ended.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._recent: dict[str, bytes] = {}  # oldest first
        self.next_ending = asyncio.Event()
        """Set at the next ending of any detection, then replaced."""
        self.stopping = False
        """Whether streams of events should end."""
        self._waiting: defaultdict[str, set[Subscription]] = defaultdict(set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen while the context lasts."""
        # A cancel scope repeats the cancellation until the task ends; the Redis client can
        # swallow a single Task.cancel() while it connects.
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            yield
            group.cancel_scope.cancel()

    def stop(self) -> None:
        """End streams of events."""
        self.stopping = True
        self.next_ending.set()

    @contextlib.contextmanager
    def subscribe(self, detection_ids: Collection[str]) -> Iterator[Subscription]:
        """Messages about these detections while the context lasts: finished or deleted."""
        subscription = Subscription()
        for detection_id in detection_ids:
            self._waiting[detection_id].add(subscription)
            if detection_id in self._recent:
                subscription.notify(detection_id, self._recent[detection_id])
        try:
            yield subscription
        finally:
            for detection_id in detection_ids:
                waiting = self._waiting[detection_id]
                waiting.discard(subscription)
                if not waiting:
                    del self._waiting[detection_id]

    async def _listen(self) -> None:
        while True:
            try:
                async with (
                    connect_async(self._url) as client,
                    client.pubsub(ignore_subscribe_messages=True) as channel,
                ):
                    await channel.subscribe(FINISHED_CHANNEL)
                    async for message in channel.listen():
                        self._dispatch(message["data"])
            except RedisError as error:
                log.warning("finished_events_lost", error=str(error))
                await asyncio.sleep(_RECONNECT_DELAY)

    def _dispatch(self, message: bytes) -> None:
        self.next_ending.set()
        self.next_ending = asyncio.Event()
        name, _, ending = message.partition(b" ")
        detection_id = name.decode("ascii", "replace")
        self._recent[detection_id] = ending
        if len(self._recent) > _MAX_RECENT:
            del self._recent[next(iter(self._recent))]
        for subscription in self._waiting.get(detection_id, ()):
            subscription.notify(detection_id, ending)
