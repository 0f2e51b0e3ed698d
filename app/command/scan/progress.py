"""The progress of a scan, as one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.text import Text

from app.command.console import console

_INTERVAL = 30.0  # s between two lines in a file or pipe


class Tally:
    """Finished and failed pictures of each partition; an attempt replaces an earlier one."""

    def __init__(self) -> None:
        self._partitions: dict[int, tuple[int, int]] = {}

    def note(self, partition: int, done: int, failed: int) -> None:
        """Set the numbers of a partition."""
        self._partitions[partition] = (done, failed)

    def total(self) -> tuple[int, int]:
        """Return the numbers of finished and of failed pictures."""
        counts = self._partitions.values()
        return sum(done for done, _ in counts), sum(failed for _, failed in counts)


class ProgressLine:
    """Shows the progress on standard error: one changing line, or a line every 30 s in a log."""

    def __init__(
        self, pictures: int, before: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare the line.

        Args:
            pictures: Number of pictures of the scan.
            before: How many of them earlier runs have finished.
            clock: Seconds.
        """
        self._pictures = pictures
        self._before = before
        self._clock = clock
        self._started = clock()
        self._printed = self._started
        self._console = console(stderr=True)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        """Begin to show the line on a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the line from the terminal."""
        self._live.stop()

    def show(self, done: int, failed: int) -> None:
        """Show how many pictures of this run are finished and failed."""
        line = self.text(done, failed)
        if self._console.is_terminal:
            self._live.update(Text(line), refresh=True)
        elif self._clock() - self._printed >= _INTERVAL:
            self._printed = self._clock()
            self._console.print(line)

    def text(self, done: int, failed: int) -> str:
        """Return the line: pictures done, rate, failures, remaining time."""
        total = self._before + done
        rate = done / max(1e-9, self._clock() - self._started)
        left = "?"
        if done:
            left = str(timedelta(seconds=round((self._pictures - total) / rate)))
        return (
            f"{total:,} of {self._pictures:,} pictures, {rate:.1f}/s, {failed:,} failed, "
            f"{left} left"
        )
