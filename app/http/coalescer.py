"""Calls of many requests made as one: a thread and a round trip to Redis for all of them."""

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
"""Requests that one call serves, where they have owners."""

_Asked = tuple[Sequence[T], asyncio.Future[Sequence[R]], guard.Budget]


class Coalescer(Generic[T, R]):
    """Greedy: the first that asks is served at once, those that ask meanwhile are next, together.

    So nobody waits for company, and the busier the process is, the less each request costs.

    Args:
        call: called in a thread, one call at a time; answers in the order of what it is given, for
            each for itself. What it raises, all of them get.
        owner: whose something is that is asked. A call then takes no more than `MOST` requests, of
            each owner one after the other, so that nobody waits for all that another sends.
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
        """The answers, in the order of what is asked.

        The time that Redis takes for all of them counts as each one's.
        """
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future, guard.current()))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return await future

    def _next(self) -> list[_Asked[T, R]]:
        """Take those whose turn it is."""
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
            context = contextvars.Context()  # of no request: it is for all of them
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
                    if not future.done():  # else its caller has hung up
                        future.set_result(own)
            for _, _, one in served:
                one.charge(before - budget.left)
        self._serving = None
