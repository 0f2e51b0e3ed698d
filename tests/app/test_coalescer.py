"""Coalescing of concurrent requests into calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from app.http import guard
from app.http.coalescer import MOST, Coalescer


class Calls:
    """Doubles numbers when it is released; records the size of each call."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.sizes.append(len(asked))
        self.begun.set()
        assert self.go_on.wait(60)
        if -1 in asked:
            raise ValueError("no")
        return [2 * one for one in asked]


async def first_and_others(
    calls: Calls, numbers: Sequence[int]
) -> list[asyncio.Task[Sequence[int]]]:
    """A running call, and requests that arrived meanwhile."""
    double = Coalescer(calls)
    tasks = []
    for number in numbers:
        tasks.append(asyncio.create_task(double([number])))
        await asyncio.to_thread(calls.begun.wait, 60)
    await asyncio.sleep(0)
    return tasks


def test_requests_during_a_call_share_the_next_one() -> None:
    async def run() -> None:
        calls = Calls()
        tasks = await first_and_others(calls, range(5))
        calls.go_on.set()
        assert await asyncio.gather(*tasks) == [[0], [2], [4], [6], [8]]
        assert calls.sizes == [1, 4]

    asyncio.run(run())


def test_owners_take_turns() -> None:
    async def run() -> None:
        calls = Calls()
        double = Coalescer(calls, lambda number: "few" if number == 77 else "many")
        tasks = [asyncio.create_task(double([0]))]
        await asyncio.to_thread(calls.begun.wait, 60)
        tasks += [asyncio.create_task(double([number])) for number in (*range(1, 40), 77)]
        await asyncio.sleep(0)
        calls.go_on.set()
        await tasks[-1]
        assert len(calls.sizes) < 4, "the last to come was not in the first rounds"
        done = [task.done() for task in tasks[1:-1]]
        assert done == sorted(done, reverse=True), "of one owner who comes first is first"
        assert not all(done)
        assert await asyncio.gather(*tasks) == [[0], *([2 * n] for n in range(1, 40)), [154]]
        assert max(calls.sizes) == MOST

    asyncio.run(run())


def test_error_affects_its_call_only() -> None:
    async def run() -> None:
        calls = Calls()
        first, second, third = await first_and_others(calls, [1, -1, 3])
        calls.go_on.set()
        assert await first == [2]
        for task in (second, third):
            with pytest.raises(ValueError, match="no"):
                await task

    asyncio.run(run())


def test_cancelled_request_does_not_affect_others() -> None:
    async def run() -> None:
        calls = Calls()
        first, second, third = await first_and_others(calls, [1, 2, 3])
        first.cancel()
        second.cancel()
        await asyncio.sleep(0)
        calls.go_on.set()
        assert await third == [6]
        assert first.cancelled()
        assert second.cancelled()

    asyncio.run(run())


def test_runs_again_after_idling() -> None:
    async def run() -> None:
        calls = Calls()
        calls.go_on.set()
        double = Coalescer(calls)
        for number in range(3):
            assert await double([number, -number - 2]) == [2 * number, -2 * number - 4]
        assert calls.sizes == [2, 2, 2]

    asyncio.run(run())


def test_call_spends_the_budgets_of_all_its_requests() -> None:
    def call(asked: Sequence[int]) -> Sequence[int]:
        left.append(guard.current().left)
        with guard.current().spending():
            time.sleep(0.2)
        return asked

    async def request(seconds: float) -> float:
        budget = guard.begin(seconds)
        await together([1])
        return budget.left

    async def run() -> None:
        first, *others = await asyncio.gather(request(1.0), request(0.5), request(2.0))
        assert first <= 0.8
        assert others[0] <= 0.3
        assert others[1] <= 1.8

    left: list[float] = []
    together = Coalescer(call)
    asyncio.run(run())
    assert left == [2.0]  # as much as any of them may
