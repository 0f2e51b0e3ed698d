"""The thread that tells Redis that this worker lives, and the rule by which a device is sick."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Heart(threading.Thread):
    """Calls `beat` every `interval` seconds until it is stopped."""

    def __init__(self, beat: Callable[[], None], interval: float) -> None:
        super().__init__(name="heart", daemon=True)
        self._beat = beat
        self._interval = interval
        self._stopping = threading.Event()

    def run(self) -> None:
        """Beat; a Redis that is away for a while is not a reason to stop."""
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


class Progress:
    """How long crops have waited since a forward pass last succeeded.

    Pure: no threads, no clock. Time is handed in, in seconds of any clock that only grows.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def waits(self, now: float) -> None:
        """There are crops to compute."""
        if self._since is None:
            self._since = now

    def succeeded(self, now: float) -> None:
        """A forward pass has succeeded."""
        if self._since is not None:
            self._since = now

    def rests(self) -> None:
        """Nothing is left to compute."""
        self._since = None

    def stalled(self, now: float) -> float:
        """Seconds that work has waited without any success; 0 if there is none."""
        return 0.0 if self._since is None else max(0.0, now - self._since)
