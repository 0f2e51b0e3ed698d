"""What differs between the two clients by more than keywords."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

sleep = asyncio.sleep


class AsyncTogether:
    """Does the same for several items at once."""

    def __init__(self, most: int) -> None:
        """Do it for `most` items at the same time, in tasks."""
        self._free = asyncio.Semaphore(most)

    async def __aenter__(self) -> AsyncTogether:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def map(
        self, function: Callable[[Item], Awaitable[Result]], items: Sequence[Item]
    ) -> list[Result]:
        """Results in the order of the items; the first exception cancels the others."""

        async def run(item: Item) -> Result:
            async with self._free:
                return await function(item)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(item)) for item in items]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call what reads a file without holding up other tasks."""
    return await asyncio.to_thread(function, *arguments)
