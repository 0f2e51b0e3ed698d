"""Which deliveries may go out: callers share the threads, and dead hosts are left alone.

A line is a caller's way to a host. What others send to the same host is none of its business: they
could pretend that the host is dead.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

_FAILURES = 5  # in a row, until a host counts as dead
_PAUSE = 60.0  # s; then one delivery goes and sees
_REMEMBERED = 10_000  # lines


class Line(NamedTuple):
    """A caller, and the host and port that it wants to be told at."""

    caller: str
    host: str


class Threads:
    """Shares the threads of a process. Safe to share between them.

    A caller may have as many as it leaves free, and half of that at one host: neither a slow host
    nor a caller with a hundred of them holds up the others.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._used: Counter[Line] = Counter()
        self._lock = threading.Lock()  # guards _used

    @contextlib.contextmanager
    def turn(self, line: Line, *, alone: bool) -> Iterator[bool]:
        """Whether this thread may be used for the line, as long as the context lasts.

        Args:
            line: where to.
            alone: whether there are no other callers.
        """
        with self._lock:
            own = sum(used for other, used in self._used.items() if other.caller == line.caller)
            most_at_one = max(1, self._count // (2 if alone else 4))
            free = self._count - self._used.total()
            ours = self._used[line] < most_at_one and (0 if alone else own) < free
            self._used[line] += ours
        try:
            yield ours
        finally:
            with self._lock:
                self._used[line] -= ours
                self._used += Counter()  # forgets the lines that are not used


class Breaker:
    """Knows which hosts do not answer (a circuit breaker). Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[Line, int] = {}
        self._dead_until: dict[Line, float] = {}
        self._lock = threading.Lock()  # guards both

    def is_dead(self, line: Line) -> bool:
        """Whether there is no use in trying; once in a while it says no, for somebody has to."""
        with self._lock:
            until = self._dead_until.get(line)
            if until is None:
                return False
            if self._clock() < until:
                return True
            self._dead_until[line] = self._clock() + _PAUSE
            return False

    def note(self, line: Line, *, answered: bool) -> None:
        """Note how a try ended."""
        with self._lock:
            failures = 0 if answered else self._failures.pop(line, 0) + 1
            self._failures.pop(line, None)
            self._dead_until.pop(line, None)
            if failures:
                self._failures[line] = failures
            if failures >= _FAILURES:
                self._dead_until[line] = self._clock() + _PAUSE
            if len(self._failures) > _REMEMBERED:
                oldest = next(iter(self._failures))
                del self._failures[oldest]
                self._dead_until.pop(oldest, None)
