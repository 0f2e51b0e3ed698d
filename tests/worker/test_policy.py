"""The batching policy."""

from __future__ import annotations

import random
from collections import Counter

from worker.policy import BatchPolicy, Reason, Share


def test_no_batch_is_due_without_crops() -> None:
    assert BatchPolicy[str](8).due_in(now=5) is None


def test_without_a_window_waiting_crops_are_taken_at_once() -> None:
    policy = BatchPolicy[str](8)
    policy.add("a", 3, now=0)
    assert policy.due_in(now=0) == 0
    assert policy.take() == ([Share("a", 0, 3)], Reason.DRAINED)
    assert policy.due_in(now=0) is None
    assert len(policy) == 0


def test_full_batch_starts_before_its_window_ends() -> None:
    policy = BatchPolicy[str](4, window=10)
    policy.add("a", 3, now=0)
    assert policy.due_in(now=1) == 9
    policy.add("b", 3, now=1)
    assert policy.due_in(now=1) == 0
    shares, reason = policy.take()
    assert reason is Reason.FULL
    assert sum(share.stop - share.start for share in shares) == 4


def test_window_counts_from_the_first_crop() -> None:
    policy = BatchPolicy[str](8, window=2)
    policy.add("a", 1, now=10)
    policy.add("b", 1, now=11)
    assert policy.due_in(now=11) == 1
    assert policy.due_in(now=12.5) == 0
    assert policy.take() == ([Share("a", 0, 1), Share("b", 0, 1)], Reason.WINDOW)


def test_large_picture_does_not_block_small_ones() -> None:
    policy = BatchPolicy[str](8)
    policy.add("large", 64, now=0)
    assert policy.take()[0] == [Share("large", 0, 8)]
    for name in "abc":
        policy.add(name, 1, now=1)
    shares, _ = policy.take()
    assert {share.key for share in shares} == {"large", "a", "b", "c"}
    assert Share("large", 8, 13) in shares


def test_small_pictures_do_not_starve_a_large_one() -> None:
    policy = BatchPolicy[int](4)
    policy.add(0, 10, now=0)
    batches = 0
    for batch in range(100):
        for number in range(4):
            policy.add(1 + 4 * batch + number, 1, now=batch)
        shares, _ = policy.take()
        batches += 1
        if any(share.key == 0 and share.stop == 10 for share in shares):
            break
    assert batches < 40


def test_discarded_crops_are_not_taken() -> None:
    policy = BatchPolicy[str](2)
    policy.add("a", 5, now=0)
    policy.add("b", 1, now=0)
    policy.take()
    policy.discard("a")
    policy.discard("unknown")
    assert len(policy) == 0
    assert policy.due_in(now=0) is None


def test_every_crop_is_taken_once_in_order() -> None:
    rng = random.Random(1)
    policy = BatchPolicy[int](5)
    expected, taken, fed = {}, Counter(), 0
    while fed < 200 or len(policy):
        if fed < 200 and rng.random() < 0.6:
            expected[fed] = rng.choice([1, 1, 2, 9, 64])
            policy.add(fed, expected[fed], now=fed)
            fed += 1
        if len(policy):
            waiting = len(policy)
            shares, reason = policy.take()
            size = sum(share.stop - share.start for share in shares)
            assert size == min(5, waiting)
            assert (reason is Reason.FULL) == (size == 5)
            assert len({share.key for share in shares}) == len(shares)
            for share in shares:
                assert share.start == taken[share.key]
                taken[share.key] = share.stop
    assert taken == expected


def test_draining_finishes_pictures_one_by_one() -> None:
    policy = BatchPolicy[str](4, window=1.0)
    for name, crops in {"a": 5, "b": 2, "c": 3}.items():
        policy.add(name, crops, 0.0)
    policy.drain()
    assert policy.due_in(0.0) == 0
    batches = []
    while len(policy):
        shares, _ = policy.take()
        batches.append({share.key: share.stop - share.start for share in shares})
    assert batches == [{"b": 2, "c": 2}, {"a": 3, "c": 1}, {"a": 2}]
    assert policy.due_in(0.0) is None
