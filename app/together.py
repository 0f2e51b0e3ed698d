"""Calls of many requests made as one: a thread and a round trip to Redis for all of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Greedy: the first that asks is served at once, those that ask meanwhile are next, together.

    So nobody waits for company, and the busier the process is, the less each request costs.

    Args:
        call: called in a thread, one call at a time; answers in the order of what it is given, for
            each for itself. What it raises, all of them get.
    """

    def __init__(self, call: Callable[[list[T]], Sequence[R]]) -> None:
        self._call = call
        self._waiting: list[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = []
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, asked: Sequence[T]) -> Sequence[R]:
        """The answers, in the order of what is asked."""
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return await future

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            served, self._waiting = self._waiting, []
            everything = [one for asked, _ in served for one in asked]
            try:
                answers = iter(await loop.run_in_executor(None, self._call, everything))
            except Exception as error:
                for _, future in served:
                    if not future.done():
                        future.set_exception(error)
            else:
                for asked, future in served:
                    own = list(itertools.islice(answers, len(asked)))
                    if not future.done():  # else its caller has hung up
                        future.set_result(own)
        self._serving = None
