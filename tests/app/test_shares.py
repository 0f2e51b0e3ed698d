"""Shares of queue and storage between callers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from app.contract.directory import Directory
from app.contract.jobs import JobQueue
from app.contract.schemas import Detection
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Submission
from app.http.admission import Admission, AdmissionControl
from app.http.listing import newest
from app.http.service import Service
from app.http.waiting import FinishedEvents
from pictures.findings import View
from tests.app.conftest import StandIn, new_picture
from tests.app.test_callers_file import BOB, NEW, OLD, key, table

QUEUE_LIMIT = 12
MEGABYTE = 2**20


class Stack:
    """Callers of one service."""

    def __init__(self, redis: Redis, url: str, file: Path, **settings: object) -> None:
        self.redis = redis
        given = {"queue_limit": QUEUE_LIMIT, "callers_file": file, **settings}
        self.settings = Settings(redis_url=url, **given)
        store, queue = Store.open(redis, self.settings), JobQueue(redis, self.settings)
        self.service = Service(self.settings, store, queue, FinishedEvents(url))
        self.admission = AdmissionControl(self.settings, redis, Directory(self.settings))
        self.worker = StandIn(redis)

    def submit(self, owner: str, picture: bytes | None = None) -> Detection:
        given = new_picture() if picture is None else picture
        return self.service.submit(Submission(owner, given, View.TILED))

    def ask(self, owner: str, pictures: int = 1) -> Admission:
        self.admission._next_look = 0.0
        return self.admission.admit(owner, pictures)

    def fill(self, owner: str, most: int = 10**6) -> tuple[int, str]:
        """Upload until refused; the number of pictures, and the reason."""
        for number in range(most):
            refusal = self.ask(owner).refusal
            if refusal is not None:
                return number, refusal.code
            self.submit(owner)
        return most, ""


def callers(**alices: str) -> str:
    return table("alice", key(OLD), **alices) + table("bob", key(BOB)) + table("carol", key(NEW))


@pytest.fixture
def stack(redis: Redis, redis_url: str, tmp_path: Path) -> Stack:
    file = tmp_path / "callers.toml"
    file.write_text(callers())
    return Stack(redis, redis_url, file)


# -- queue ----------------------------------------------------------------------------------------


def test_queue_share_leaves_space_for_others(stack: Stack) -> None:
    assert stack.fill("alice") == (6, "queue_share_full")
    assert stack.fill("bob") == (3, "queue_share_full")
    assert stack.ask("carol").refusal is None
    assert stack.fill("alice") == (0, "queue_share_full")
    for name in stack.worker.queued():
        stack.worker.finish(name)
    assert stack.fill("alice") == (6, "queue_share_full"), "what is done waits no longer"


def test_last_place_is_kept_for_another_caller(stack: Stack) -> None:
    admission = stack.ask("alice", 64)
    assert admission.taken == 6
    assert admission.refusal is not None
    assert admission.refusal.code == "queue_share_full"
    for number in range(QUEUE_LIMIT - 1):
        stack.redis.rpush("rq:queue:gamma", f"of somebody {number}")
    assert stack.fill("carol") == (1, "queue_full")
    refusal = stack.ask("alice").refusal
    assert refusal is not None
    assert refusal.code == "queue_full"


def test_single_caller_may_fill_the_queue(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(table("alice", key(OLD)))
    assert Stack(redis, redis_url, file).fill("alice") == (QUEUE_LIMIT, "queue_full")


def test_weights_and_limits_of_a_caller(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(callers(weight="3"))
    assert Stack(redis, redis_url, file).fill("alice") == (9, "queue_share_full")
    redis.flushall()
    file.write_text(callers(queue_limit="2"))
    assert Stack(redis, redis_url, file).fill("alice") == (2, "queue_share_full")
    redis.flushall()
    file.write_text(callers(storage_limit='"5KiB"'))
    stack = Stack(redis, redis_url, file)
    first = stack.submit("alice", new_picture() + bytes(5000))
    assert stack.fill("alice") == (0, "storage_share_full")
    assert stack.fill("bob", 1) == (1, "")
    stack.service.delete(first.id, "alice")
    assert stack.fill("alice", 1) == (1, "")


def test_slow_queue_affects_its_caller_only(stack: Stack) -> None:
    name = stack.submit("alice").id
    age = stack.settings.queue_age_limit + 60
    for waiting in ("gamma:waiting", "gamma:waiting:alice"):
        stack.redis.zadd(waiting, {name: time.time() - age})
    refusal = stack.ask("alice").refusal
    assert refusal is not None
    assert refusal.code == "queue_slow"
    assert stack.ask("bob").refusal is None


def test_expired_detections_do_not_count_as_waiting(stack: Stack) -> None:
    assert stack.fill("alice") == (6, "queue_share_full")
    names = stack.worker.queued()
    stack.redis.delete("rq:queue:gamma")  # as workers leave out what has expired
    ago = time.time() - stack.settings.queue_ttl - 1
    stack.redis.zadd("gamma:waiting:alice", dict.fromkeys(names, ago))
    assert stack.fill("alice") == (6, "queue_share_full")


# -- storage --------------------------------------------------------------------------------------


def held(stack: Stack, owner: str = "alice") -> int:
    return int(stack.redis.get(f"gamma:held-bytes:{owner}") or 0)


def test_repeated_picture_is_stored_once(stack: Stack) -> None:
    picture = new_picture() + bytes(MEGABYTE)
    first = stack.submit("alice", picture)
    again = stack.submit("alice", picture)
    assert (again.cached, held(stack)) == (False, len(picture)), "no result yet"
    assert stack.worker.finish(first.id)
    assert stack.worker.finish(again.id)
    masks = sum(map(len, StandIn.MASKS.values()))
    before = stack.redis.info("memory")["used_memory"]
    for _ in range(50):
        assert stack.submit("alice", picture).cached
    assert stack.redis.info("memory")["used_memory"] - before < 2 * MEGABYTE
    assert held(stack) == len(picture) + masks
    stack.submit("bob", picture)
    assert held(stack, "bob") == len(picture), "callers share nothing"
    for detection in newest(stack.service.store, "alice", 100, None).detections:
        assert stack.service.store.get_image(detection.id) == picture
        stack.service.delete(detection.id, "alice")
    assert held(stack) == 0
    left = {b"gamma:held-bytes:alice", b"gamma:events:alice"}  # ids that ended expire
    assert set(stack.redis.keys("gamma:*:alice*")) == left
    assert len(stack.redis.keys("gamma:image:*:holders")) == 1, "what bob holds"


def test_bytes_live_as_long_as_the_last_holder(stack: Stack) -> None:
    picture = new_picture()
    first, second = stack.submit("alice", picture), stack.submit("alice", picture)
    (image,) = stack.redis.keys("gamma:image:alice:*[^s]")

    def end() -> int:
        return int(stack.redis.pexpiretime(image))

    def moment(detection: Detection) -> int:
        return int(detection.expires_at.timestamp() * 1000)

    assert end() == moment(second)
    stack.service.delete(second.id, "alice")
    assert end() == moment(first)
    assert stack.service.store.get_image(first.id) == picture


def test_expired_bytes_do_not_count(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(callers(storage_limit='"5KiB"'))
    stack = Stack(redis, redis_url, file, retention=2)
    stack.submit("alice", new_picture() + bytes(5000))
    assert stack.fill("alice") == (0, "storage_share_full")
    time.sleep(2.1)
    assert stack.fill("alice", 1) == (1, "")


def test_storage_share_leaves_space_for_others(stack: Stack) -> None:
    used = stack.redis.info("memory")["used_memory"]
    stack.redis.config_set("maxmemory", int((used + 20 * MEGABYTE) / 0.9))
    for _ in range(20):
        if (refusal := stack.ask("alice").refusal) is not None:
            break
        stack.worker.finish(stack.submit("alice", new_picture() + bytes(MEGABYTE)).id)
    assert refusal is not None
    assert refusal.code == "storage_share_full"
    assert 8 * MEGABYTE < held(stack) < 12 * MEGABYTE
    assert stack.fill("bob", 1) == (1, "")
