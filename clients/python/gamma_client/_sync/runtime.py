"""What differs between the two clients by more than keywords."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

sleep = time.sleep


class Together:
    """Does the same for several items at once."""

    def __init__(self, most: int) -> None:
        """Do it for `most` items at the same time, in threads."""
        self._pool = ThreadPoolExecutor(most)

    def __enter__(self) -> Together:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Ctrl-C does not wait for uploads, which may be repeated for minutes.
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._pool.shutdown(wait=not interrupted, cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results in the order of the items."""
        return list(self._pool.map(function, items))


def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call it; other threads go on while it reads a file."""
    return function(*arguments)
