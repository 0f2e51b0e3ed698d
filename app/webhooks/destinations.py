"""Fair use of the delivery threads, and circuit breakers for hosts that do not answer.

Both are kept per destination, a pair of caller and host, so that one caller's failed deliveries
cannot block another caller's deliveries to the same host.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

_MAX_FAILURES = 5  # in a row, before the circuit opens
_PAUSE = 60.0  # s, between probes while it is open
_MAX_DESTINATIONS = 10_000


class Destination(NamedTuple):
    """A caller, and the host (with port) of its webhooks."""

    caller: str
    host: str


class ThreadShares:
    """Shares the threads of a process between callers and hosts. Thread-safe.

    A caller may use as many threads as it leaves free, and half of that for one host, so that
    slow hosts delay no other deliveries.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._used: Counter[Destination] = Counter()
        self._lock = threading.Lock()  # guards _used

    @contextlib.contextmanager
    def acquire(self, destination: Destination, *, alone: bool) -> Iterator[bool]:
        """Reserve a thread for a destination while the context lasts; yields False if refused.

        Args:
            destination: destination of the delivery.
            alone: whether there are no other callers.
        """
        with self._lock:
            own = sum(
                used for other, used in self._used.items() if other.caller == destination.caller
            )
            per_host = max(1, self._count // (2 if alone else 4))
            free = self._count - self._used.total()
            acquired = self._used[destination] < per_host and (0 if alone else own) < free
            self._used[destination] += acquired
        try:
            yield acquired
        finally:
            with self._lock:
                self._used[destination] -= acquired
                self._used += Counter()  # removes entries of 0


class CircuitBreaker:
    """Circuit breaker for each destination. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[Destination, int] = {}
        self._open_until: dict[Destination, float] = {}
        self._lock = threading.Lock()  # guards both

    def is_open(self, destination: Destination) -> bool:
        """Whether not to send; False once a minute, so that one delivery probes the host."""
        with self._lock:
            until = self._open_until.get(destination)
            if until is None:
                return False
            if self._clock() < until:
                return True
            self._open_until[destination] = self._clock() + _PAUSE
            return False

    def record(self, destination: Destination, *, answered: bool) -> None:
        """Record the result of an attempt."""
        with self._lock:
            failures = 0 if answered else self._failures.pop(destination, 0) + 1
            self._failures.pop(destination, None)
            self._open_until.pop(destination, None)
            if failures:
                self._failures[destination] = failures
            if failures >= _MAX_FAILURES:
                self._open_until[destination] = self._clock() + _PAUSE
            if len(self._failures) > _MAX_DESTINATIONS:
                oldest = next(iter(self._failures))
                del self._failures[oldest]
                self._open_until.pop(oldest, None)
