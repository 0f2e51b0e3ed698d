"""Threads of deliveries are shared between callers; dead hosts are left alone."""

from __future__ import annotations

import contextlib

from app.webhooks.lines import Breaker, Line, Threads


def most(threads: Threads, lines: list[Line], stack: contextlib.ExitStack, alone: bool) -> int:
    """How many of the lines get a thread and keep it."""
    return sum(stack.enter_context(threads.turn(line, alone=alone)) for line in lines)


def test_a_caller_with_many_hosts_leaves_threads_to_others() -> None:
    threads = Threads(8)
    many = [Line("bob", f"host-{number}") for number in range(100)]
    with contextlib.ExitStack() as stack:
        assert most(threads, many, stack, alone=False) == 4
        assert most(threads, [Line("carol", str(n)) for n in range(100)], stack, alone=False) == 2
        assert most(threads, [Line("alice", "host-1")], stack, alone=False) == 1
    with contextlib.ExitStack() as stack:
        assert most(threads, many, stack, alone=True) == 8


def test_a_host_holds_up_neither_its_caller_nor_others_at_the_same_host() -> None:
    threads = Threads(8)
    with contextlib.ExitStack() as stack:
        assert most(threads, [Line("bob", "slow")] * 9, stack, alone=False) == 2
        assert most(threads, [Line("bob", "quick")], stack, alone=False) == 1
        assert most(threads, [Line("alice", "slow")], stack, alone=False) == 1
    with contextlib.ExitStack() as stack:
        assert most(threads, [Line("bob", "slow")] * 9, stack, alone=True) == 4
    with contextlib.ExitStack() as stack:
        assert most(Threads(1), [Line("bob", "slow")] * 2, stack, alone=False) == 1


def test_a_host_that_does_not_answer_is_tried_once_a_minute() -> None:
    now = 0.0
    breaker = Breaker(lambda: now)
    line, other = Line("bob", "dead"), Line("alice", "dead")
    for _ in range(5):
        assert not breaker.is_dead(line)
        breaker.note(line, answered=False)
    assert breaker.is_dead(line)
    assert not breaker.is_dead(other), "bob's word does not count for alice"
    now = 61.0
    assert [breaker.is_dead(line) for _ in range(3)] == [False, True, True]
    breaker.note(line, answered=False)
    assert breaker.is_dead(line)
    now = 122.0
    assert not breaker.is_dead(line)
    breaker.note(line, answered=True)
    assert not any(breaker.is_dead(line) for _ in range(3))


def test_an_answer_in_between_begins_anew_and_little_is_remembered() -> None:
    breaker = Breaker()
    line = Line("bob", "flaky")
    for _ in range(4):
        for _ in range(4):
            breaker.note(line, answered=False)
        breaker.note(line, answered=True)
    assert not breaker.is_dead(line)
    for number in range(12_000):
        breaker.note(Line("bob", str(number)), answered=False)
    assert len(breaker._failures) == 10_000
