"""A bound on what threads have in hand."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Holds threads back while too much of something is in hand.

    It passes whatever comes while the limit is not reached, however large, so that nothing waits
    for ever; what is in hand stays below the limit and one item more for each thread.
    """

    def __init__(self, limit: int) -> None:
        self._limit: float = limit
        self._used = 0
        self._changed = threading.Condition()

    def acquire(self, amount: int) -> None:
        """Wait until the limit is not reached, then take `amount`."""
        with self._changed:
            self.wait()
            self.take(amount)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the limit is not reached; False if `timeout` seconds were too short."""
        with self._changed:
            return self._changed.wait_for(lambda: self._used < self._limit, timeout)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until nothing is in hand; False if `timeout` seconds were too short."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._used, timeout)

    def take(self, amount: int) -> None:
        """Take `amount` without waiting."""
        with self._changed:
            self._used += amount

    def release(self, amount: int) -> None:
        """Give `amount` back."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Take `amount` as long as the context lasts."""
        self.acquire(amount)
        try:
            yield
        finally:
            self.release(amount)

    def lift(self) -> None:
        """Hold nobody back from now on."""
        with self._changed:
            self._limit = math.inf
            self._changed.notify_all()
