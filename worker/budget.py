"""Weighted semaphore."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Blocks threads while the amount in use has reached a limit.

    An acquisition of any size succeeds below the limit, so that none waits forever. The amount in
    use may exceed the limit by one acquisition per thread.
    """

    def __init__(self, limit: int) -> None:
        self._limit: float = limit
        self._used = 0
        self._changed = threading.Condition()

    def acquire(self, amount: int) -> None:
        """Wait until the amount in use is below the limit, then take `amount`."""
        with self._changed:
            self.wait()
            self.take(amount)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the amount in use is below the limit; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._used < self._limit, timeout)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until nothing is in use; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._used, timeout)

    def take(self, amount: int) -> None:
        """Take `amount` without waiting."""
        with self._changed:
            self._used += amount

    def release(self, amount: int) -> None:
        """Return `amount`."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Hold `amount` within the context."""
        self.acquire(amount)
        try:
            yield
        finally:
            self.release(amount)

    def lift(self) -> None:
        """Remove the limit."""
        with self._changed:
            self._limit = math.inf
            self._changed.notify_all()
