"""Batching policy: which crops go into the next forward pass. Greedy, and fair among pictures.

Pure: no threads, no clock, no device. `now` is in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Reason(StrEnum):
    """Why a forward pass started."""

    FULL = "full"
    """The batch was full."""
    DRAINED = "drained"
    """No other crops were waiting."""
    WINDOW = "window"
    """The window of the first crop ended."""


@dataclass(frozen=True)
class Share(Generic[Key]):
    """The crops `start` to `stop` of one picture."""

    key: Key
    start: int
    stop: int


@dataclass
class _Waiting:
    since: float
    start: int
    stop: int

    @property
    def crops(self) -> int:
        return self.stop - self.start


class BatchPolicy(Generic[Key]):
    """Queue of crops; a picture with only a glance counts as one crop.

    Args:
        max_batch: maximum number of crops in a batch.
        window: seconds that a batch waits to become full, from the arrival of its first crop;
            0 means not to wait while the device is free.
    """

    def __init__(self, max_batch: int, window: float = 0.0) -> None:
        self._max_batch = max_batch
        self._window = window
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self._crops = 0
        self._draining = False

    def __len__(self) -> int:
        """Number of waiting crops."""
        return self._crops

    def add(self, key: Key, crops: int, now: float) -> None:
        """Add a picture with `crops` crops."""
        self._waiting[key] = _Waiting(now, 0, crops)
        self._crops += crops

    def discard(self, key: Key) -> None:
        """Remove the waiting crops of a picture."""
        dropped = self._waiting.pop(key, None)
        if dropped is not None:
            self._crops -= dropped.crops

    def drain(self) -> None:
        """From now on, start batches at once and finish one picture after the other."""
        self._draining = True

    def due_in(self, now: float) -> float | None:
        """Seconds until the next batch should start; None if no crops are waiting."""
        if not self._waiting:
            return None
        if self._draining or self._crops >= self._max_batch:
            return 0.0
        first = min(waiting.since for waiting in self._waiting.values())
        return max(0.0, first + self._window - now)

    def take(self) -> tuple[list[Share[Key]], Reason]:
        """Take the next batch, round robin: one crop per picture, the longest waiting first.

        A picture with crops left goes to the end of the queue, so large and small pictures do not
        block each other. While draining, pictures with the fewest crops left go first, with all
        their crops, so that as many as possible are finished in time.
        """
        room = self._max_batch
        counts = dict.fromkeys(self._waiting, 0)
        if self._draining:
            for key, waiting in sorted(self._waiting.items(), key=lambda item: item[1].crops):
                counts[key] = min(room, waiting.crops)
                room -= counts[key]
        while room:
            served = [k for k, w in self._waiting.items() if counts[k] < w.crops][:room]
            if not served:
                break
            for key in served:
                counts[key] += 1
            room -= len(served)
        shares = [self._serve(key, count) for key, count in counts.items() if count]
        self._crops -= self._max_batch - room
        if not room:
            return shares, Reason.FULL
        return shares, Reason.WINDOW if self._window else Reason.DRAINED

    def _serve(self, key: Key, count: int) -> Share[Key]:
        waiting = self._waiting[key]
        share = Share(key, waiting.start, waiting.start + count)
        waiting.start += count
        if waiting.start == waiting.stop:
            del self._waiting[key]
        else:
            self._waiting.move_to_end(key)
        return share
