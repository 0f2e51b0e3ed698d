"""Heartbeat thread, and detection of a device that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Heartbeat(threading.Thread):
    """Calls `beat` every `interval` seconds until stopped."""

    def __init__(self, beat: Callable[[], None], interval: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._beat = beat
        self._interval = interval
        self._stopping = threading.Event()

    def run(self) -> None:
        """Run the thread; errors are logged and do not end it, e.g. while Redis is down."""
        while not self._stopping.is_set():
            try:
                self._beat()
            except Exception as error:
                log.error("heartbeat_failed", error=repr(error))
            self._stopping.wait(self._interval)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join()


class StallTimer:
    """Measures how long crops have waited since a forward pass last succeeded.

    Pure: no threads, no clock. `now` is in seconds of any monotonic clock.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def work_arrived(self, now: float) -> None:
        """Start the timer unless it is running: there are crops to compute."""
        if self._since is None:
            self._since = now

    def succeeded(self, now: float) -> None:
        """Restart the timer if it is running: a forward pass has succeeded."""
        if self._since is not None:
            self._since = now

    def idle(self) -> None:
        """Stop the timer: nothing is left to compute."""
        self._since = None

    def stalled(self, now: float) -> float:
        """Seconds that work has waited without success; 0 if there is no work."""
        return 0.0 if self._since is None else max(0.0, now - self._since)
