"""Coalescing of concurrent calls into one, with one thread and one round trip to Redis."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from app.http import guard

T = TypeVar("T")
R = TypeVar("R")


MOST = 16
"""Maximum number of requests per call, if they have owners."""

_Asked = tuple[Sequence[T], asyncio.Future[Sequence[R]], guard.Budget]


class Coalescer(Generic[T, R]):
    """Runs one call at a time; requests that arrive meanwhile share the next call.

    No request waits for others to arrive, and the cost per request falls with the load.

    Args:
        call: runs in a thread; returns one result per argument, in order. All requests of a call
            get an exception that it raises.
        owner: returns the owner of an argument. A call then has at most `MOST` requests, taken
            from the owners in turn, so that no owner delays the others.
    """

    def __init__(
        self,
        call: Callable[[list[T]], Sequence[R]],
        owner: Callable[[T], str] | None = None,
    ) -> None:
        self._call = call
        self._owner = owner
        self._waiting: list[_Asked[T, R]] = []
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, asked: Sequence[T]) -> Sequence[R]:
        """Results of the arguments, in order.

        The whole time that the call waits for Redis is charged to each request.
        """
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future, guard.current()))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return await future

    def _next(self) -> list[_Asked[T, R]]:
        """Remove and return the requests of the next call."""
        waiting, self._waiting = self._waiting, []
        if self._owner is None or len(waiting) <= MOST:
            return waiting
        seen: Counter[str] = Counter()
        turns = []
        for one in waiting:
            owner = self._owner(one[0][0])
            turns.append(seen[owner])
            seen[owner] += 1
        order = sorted(range(len(waiting)), key=turns.__getitem__)
        self._waiting = [waiting[at] for at in sorted(order[MOST:])]
        return [waiting[at] for at in order[:MOST]]

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            served = self._next()
            everything = [one for asked, _, _ in served for one in asked]
            context = contextvars.Context()  # empty, as the call serves several requests
            budget = context.run(guard.begin, max(one.left for _, _, one in served))
            before = budget.left
            try:
                answers = iter(
                    await loop.run_in_executor(None, context.run, self._call, everything)
                )
            except Exception as error:
                for _, future, _ in served:
                    if not future.done():
                        future.set_exception(error)
            else:
                for asked, future, _ in served:
                    own = list(itertools.islice(answers, len(asked)))
                    if not future.done():  # cancelled if the client disconnected
                        future.set_result(own)
            for _, _, one in served:
                one.charge(before - budget.left)
        self._serving = None
