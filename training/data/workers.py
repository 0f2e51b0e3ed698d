"""Threads for work on many pictures (decoding and encoding release the interpreter's lock)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Results of a function for each item, in the items' order, computed by threads.

    At most two items a worker are ahead of the result that is taken, so memory stays bounded
    and an interrupted run loses little.

    Args:
        function: called in the threads; what it raises is raised here.
        items: taken as they are needed.
        workers: number of threads, at least 1.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
