"""Thread shares and circuit breakers of webhook destinations."""

from __future__ import annotations

import contextlib

from app.webhooks.destinations import CircuitBreaker, Destination, ThreadShares


def acquire(
    threads: ThreadShares, hosts: list[Destination], stack: contextlib.ExitStack, alone: bool
) -> int:
    """Number of destinations that get a thread, which they keep until `stack` closes."""
    return sum(stack.enter_context(threads.acquire(host, alone=alone)) for host in hosts)


def test_caller_with_many_hosts_leaves_threads_to_others() -> None:
    threads = ThreadShares(8)
    bobs = [Destination("bob", f"host-{number}") for number in range(100)]
    with contextlib.ExitStack() as stack:
        assert acquire(threads, bobs, stack, alone=False) == 4
        carols = [Destination("carol", str(n)) for n in range(100)]
        assert acquire(threads, carols, stack, alone=False) == 2
        assert acquire(threads, [Destination("alice", "host-1")], stack, alone=False) == 1
    with contextlib.ExitStack() as stack:
        assert acquire(threads, bobs, stack, alone=True) == 8


def test_slow_host_delays_no_other_deliveries() -> None:
    threads = ThreadShares(8)
    with contextlib.ExitStack() as stack:
        assert acquire(threads, [Destination("bob", "slow")] * 9, stack, alone=False) == 2
        assert acquire(threads, [Destination("bob", "quick")], stack, alone=False) == 1
        assert acquire(threads, [Destination("alice", "slow")], stack, alone=False) == 1
    with contextlib.ExitStack() as stack:
        assert acquire(threads, [Destination("bob", "slow")] * 9, stack, alone=True) == 4
    with contextlib.ExitStack() as stack:
        assert acquire(ThreadShares(1), [Destination("bob", "slow")] * 2, stack, alone=False) == 1


def test_dead_host_is_probed_once_a_minute() -> None:
    now = 0.0
    breaker = CircuitBreaker(lambda: now)
    destination, other = Destination("bob", "dead"), Destination("alice", "dead")
    for _ in range(5):
        assert not breaker.is_open(destination)
        breaker.record(destination, answered=False)
    assert breaker.is_open(destination)
    assert not breaker.is_open(other), "bob's failures must not block alice"
    now = 61.0
    assert [breaker.is_open(destination) for _ in range(3)] == [False, True, True]
    breaker.record(destination, answered=False)
    assert breaker.is_open(destination)
    now = 122.0
    assert not breaker.is_open(destination)
    breaker.record(destination, answered=True)
    assert not any(breaker.is_open(destination) for _ in range(3))


def test_answer_resets_failures_and_memory_is_bounded() -> None:
    breaker = CircuitBreaker()
    destination = Destination("bob", "flaky")
    for _ in range(4):
        for _ in range(4):
            breaker.record(destination, answered=False)
        breaker.record(destination, answered=True)
    assert not breaker.is_open(destination)
    for number in range(12_000):
        breaker.record(Destination("bob", str(number)), answered=False)
    assert len(breaker._failures) == 10_000
