"""Which crops go into the next forward pass: greedy, full if it can be, fair among pictures.

Pure: no threads, no clock, no device. Time is handed in, in seconds of any clock that only grows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Reason(StrEnum):
    """Why a batch left."""

    FULL = "full"
    """It held as many crops as fit."""
    DRAINED = "drained"
    """Nothing else waited."""
    WINDOW = "window"
    """The window of its first crop was over."""


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
    """The crops that wait; a picture that is only glanced at counts as one.

    Args:
        max_batch: most crops in a batch.
        window: seconds that a batch which is not full waits for more, from the arrival of its
            first crop; 0 never waits while the device is free.
    """

    def __init__(self, max_batch: int, window: float = 0.0) -> None:
        self._max_batch = max_batch
        self._window = window
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self._crops = 0
        self._draining = False

    def __len__(self) -> int:
        """Number of crops that wait."""
        return self._crops

    def add(self, key: Key, crops: int, now: float) -> None:
        """Let the crops of a picture wait."""
        self._waiting[key] = _Waiting(now, 0, crops)
        self._crops += crops

    def discard(self, key: Key) -> None:
        """Forget what still waits of a picture."""
        dropped = self._waiting.pop(key, None)
        if dropped is not None:
            self._crops -= dropped.crops

    def drain(self) -> None:
        """Let batches leave at once from now on, and finish picture after picture."""
        self._draining = True

    def due_in(self, now: float) -> float | None:
        """Seconds until the next batch should leave; None while nothing waits."""
        if not self._waiting:
            return None
        if self._draining or self._crops >= self._max_batch:
            return 0.0
        first = min(waiting.since for waiting in self._waiting.values())
        return max(0.0, first + self._window - now)

    def take(self) -> tuple[list[Share[Key]], Reason]:
        """The next batch: pictures take turns, one crop each, the longest waiting first.

        A picture that still has crops left goes to the end of the line, so that a large one
        never holds up the small ones behind it, nor they it. Draining, those with the fewest
        crops left come first, all of them: so most pictures are finished in the time there is.
        """
        room = self._max_batch
        counts = dict.fromkeys(self._waiting, 0)
        if self._draining:
            for key, waiting in sorted(self._waiting.items(), key=lambda item: item[1].crops):
                counts[key] = min(room, waiting.crops)
                room -= counts[key]
        while room:
            hungry = [k for k, w in self._waiting.items() if counts[k] < w.crops][:room]
            if not hungry:
                break
            for key in hungry:
                counts[key] += 1
            room -= len(hungry)
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
