"""Fair queueing: callers take turns in RQ's list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker import SimpleWorker

from app.contract.submission import Submission
from pictures.findings import View
from tests.app.conftest import new_picture
from tests.app.test_callers_file import BOB, OLD, key, table
from tests.app.test_shares import Stack
from tests.conftest import encode
from worker.jobs import take


def stack_of(redis: Redis, url: str, folder: Path, **alices: str) -> Stack:
    file = folder / "callers.toml"
    file.write_text(table("alice", key(OLD), **alices) + table("bob", key(BOB)))
    return Stack(redis, url, file, cache=False)


@pytest.fixture
def stack(redis: Redis, redis_url: str, tmp_path: Path) -> Stack:
    return stack_of(redis, redis_url, tmp_path)


def owners(stack: Stack) -> str:
    """Whose the waiting jobs are, in their order, by the first letter."""
    keys = [f"gamma:detection:{name}" for name in stack.worker.queued()]
    return "".join(stack.redis.hget(key, "owner").decode()[0] for key in keys)


def taken(stack: Stack, most: int) -> str:
    """Whose jobs a worker takes."""
    queue = Queue("gamma", connection=stack.redis, serializer=JSONSerializer)
    worker = SimpleWorker([queue], connection=stack.redis, serializer=JSONSerializer)
    held, _ = take(worker, queue, most, f"{most}", idle=True)
    return "".join(
        stack.service.store.redis.hget(f"gamma:detection:{job.id}", "owner").decode()[0]
        for job in held
    )


def test_new_caller_does_not_wait_for_all_jobs_of_others(stack: Stack) -> None:
    names = [stack.submit("alice").id for _ in range(6)]
    assert stack.worker.queued() == names
    for _ in range(3):
        stack.submit("bob")
    assert owners(stack) == "abababaaa"
    assert taken(stack, 4) == "abab"
    stack.submit("carol")
    assert owners(stack) == "abcaaa"
    stack.submit("bob")
    assert owners(stack) == "abcabaa"
    assert [name for name in stack.worker.queued() if name in names] == names[2:], "its own order"


def test_unused_turns_are_not_saved(stack: Stack) -> None:
    for _ in range(4):
        stack.submit("alice")
    assert taken(stack, 3) == "aaa"
    for _ in range(3):
        stack.submit("bob")
    stack.submit("alice")
    assert owners(stack) == "abbab"


def test_empty_queue_resets_the_turns(stack: Stack) -> None:
    for _ in range(5):
        stack.submit("alice")
    assert taken(stack, 8) == "aaaaa"
    stack.submit("alice")
    stack.submit("bob")
    stack.submit("alice")
    assert owners(stack) == "aba"


def test_weights(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    stack = stack_of(redis, redis_url, tmp_path, weight="3")
    for _ in range(12):
        stack.submit("alice")
        stack.submit("bob")
    assert Counter(taken(stack, 8)) == {"a": 6, "b": 2}


def test_a_large_picture_is_a_longer_turn(stack: Stack) -> None:
    large = encode(Image.new("RGB", (2048, 1024)), "PNG")
    for number in range(3):
        stack.submit("alice", large + bytes(number))
    for _ in range(9):
        stack.submit("bob")
    assert owners(stack) == "abbbbbbbbaba"
    stack.service.submit(Submission("carol", large, View.CENTER))
    stack.service.submit(Submission("carol", large + b" ", View.CENTER))
    assert owners(stack) == "abcbcbbbbbbaba"


def test_retried_jobs_come_first(stack: Stack) -> None:
    first, second = stack.submit("alice"), stack.submit("alice")
    stack.redis.lrem("rq:queue:gamma", 1, first.id)
    stack.redis.lpush("rq:queue:gamma", first.id)
    third, newcomer = stack.submit("alice"), stack.submit("bob", new_picture())
    queued = stack.worker.queued()
    assert queued[0] == first.id
    assert queued.index(second.id) < queued.index(third.id)
    assert queued.index(newcomer.id) < 2


def test_missing_scripts_are_loaded_again(stack: Stack) -> None:
    first = stack.submit("alice")
    stack.redis.script_flush()
    second = stack.submit("bob")
    stack.redis.script_flush()
    assert stack.worker.finish(first.id)
    assert stack.worker.queued() == [second.id]
