"""Memory reservations for the results of accepted detections."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from app.contract.reservation import RECORD_BYTES, reservation
from app.contract.schemas import Detection, ImageInfo, ViewInfo
from app.contract.submission import Submission
from app.http.problems import ServiceError
from pictures import png
from pictures.findings import View
from tests.app.conftest import StandIn, new_picture
from tests.app.test_callers_file import BOB, OLD, key, table
from tests.app.test_shares import Stack
from tests.conftest import encode, photo

SIDE = 300  # pixels
NEEDED = RECORD_BYTES + 2 * SIDE * SIDE
MEGABYTE = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "callers.toml"
    path.write_text(table("alice", key(OLD)) + table("bob", key(BOB)))
    return path


@pytest.fixture
def stack(redis: Redis, redis_url: str, file: Path) -> Stack:
    return Stack(redis, redis_url, file, queue_limit=10_000)


def picture(seed: int) -> bytes:
    return encode(photo(SIDE, SIDE, seed))


def reserved(stack: Stack, owner: str = "") -> int:
    """What is reserved for an owner, or for all; the sum is that of the reservations."""
    total = sum(int(name.split()[0]) for name in stack.redis.zrange("gamma:reservations", 0, -1))
    assert int(stack.redis.hget("gamma:reserved", "") or 0) == total
    return int(stack.redis.hget("gamma:reserved", owner) or 0)


def leave(stack: Stack, space: int) -> None:
    """Set the memory limit so that so many bytes are neither in use nor reserved."""
    used = stack.redis.info("memory")["used_memory"] + reserved(stack)
    stack.redis.config_set("maxmemory", int((used + space) / stack.settings.storage_limit))


def free(stack: Stack) -> float:
    memory = stack.redis.info("memory")
    limit = memory["maxmemory"] * stack.settings.storage_limit
    return limit - memory["used_memory"] - reserved(stack)


# -- how much -------------------------------------------------------------------------------------


def queued(width: int, height: int, view: View = View.AUTO) -> Detection:
    now = datetime.now(UTC)
    return Detection(
        id="a" * 32,
        image=ImageInfo(width=width, height=height, format="PNG", bytes=1, sha256="0" * 64),
        view=ViewInfo(mode=view),
        created_at=now,
        expires_at=now + timedelta(days=1),
    )


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (37, 1200), (640, 480), (2000, 1500)], ids=str)
def test_masks_of_noise_fit_into_the_reservation(size: tuple[int, int]) -> None:
    """A network says one number for 4 x 4 pixels; what is smaller than its crop is enlarged."""
    width, height = size
    scale = max(1, 512 // min(size))
    cells = np.random.default_rng(0).integers(0, 256, (height * scale // 4, width * scale // 4))
    noise = Image.fromarray(cells.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    assert 2 * len(png.encode([np.asarray(noise)])) < reservation(queued(*size), external=False)


def test_only_the_record_is_reserved_without_masks_in_redis() -> None:
    assert reservation(queued(4000, 3000, View.GLANCE), external=False) == RECORD_BYTES
    assert reservation(queued(4000, 3000), external=True) == RECORD_BYTES


# -- how long -------------------------------------------------------------------------------------


def finish(stack: Stack, name: str) -> None:
    assert stack.worker.finish(name)


def fail(stack: Stack, name: str) -> None:
    stack.worker.fail(name)


def delete(stack: Stack, name: str) -> None:
    stack.service.delete(name, "alice")


def delete_in_a_full_redis(stack: Stack, name: str) -> None:
    stack.redis.config_set("maxmemory", 1)
    delete(stack, name)


@pytest.mark.parametrize("end", [finish, fail, delete, delete_in_a_full_redis])
def test_memory_is_reserved_until_the_detection_ends(
    stack: Stack, end: Callable[[Stack, str], None]
) -> None:
    names = [stack.submit(owner, picture(1)).id for owner in ("alice", "bob")]
    assert reserved(stack) == 2 * NEEDED
    end(stack, names[0])
    assert reserved(stack) == reserved(stack, "bob") == NEEDED
    assert reserved(stack, "alice") == 0
    assert stack.admission.usage("bob").reserved_bytes == NEEDED
    assert not stack.worker.store.start([names[0]])
    assert reserved(stack) == NEEDED


def test_reservation_expires_with_the_deadline_unless_started(
    redis: Redis, redis_url: str, file: Path
) -> None:
    stack = Stack(redis, redis_url, file, queue_ttl=1)
    begun, waiting = (stack.submit("alice", picture(number)).id for number in range(2))
    record = stack.worker.take(begun)
    time.sleep(1.1)
    assert stack.admission.usage("alice").reserved_bytes == reserved(stack) == NEEDED
    assert stack.worker.take(begun) == record, "as another worker does, if that one is killed"
    assert stack.worker.deliver(record)
    assert stack.admission.usage("alice").reserved_bytes == reserved(stack) == 0
    assert not stack.worker.store.start([waiting])


def test_known_picture_reserves_nothing(stack: Stack) -> None:
    finish(stack, stack.submit("alice", picture(1)).id)
    assert stack.submit("alice", picture(1)).cached
    assert reserved(stack) == 0


# -- what is refused ------------------------------------------------------------------------------


def test_replicas_accept_no_more_than_fits(redis: Redis, redis_url: str, file: Path) -> None:
    file.write_text(table("alice", key(OLD)))
    stacks = [Stack(redis, redis_url, file, queue_limit=10_000) for _ in range(2)]
    pictures = [picture(number) for number in range(60)]
    leave(stacks[0], 5 * MEGABYTE)

    def submit(number: int) -> str:
        try:
            stacks[number % 2].submit("alice", pictures[number])
        except ServiceError as error:
            return error.code
        return "accepted"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(submit, range(len(pictures))))
    assert set(outcomes) == {"accepted", "storage_full"}
    assert reserved(stacks[0]) == NEEDED * outcomes.count("accepted")
    # Eight connections' buffers come and go: up to half a megabyte. Unchecked, it is -6 megabytes.
    assert -NEEDED < free(stacks[0]) < MEGABYTE
    stored = keys_like(stacks[0], "gamma:image:*")
    assert len(stored) == outcomes.count("accepted"), "nothing is left of what was refused"


def keys_like(stack: Stack, pattern: str) -> list[bytes]:
    return [name for name in stack.redis.keys(pattern) if not name.endswith(b":holders")]


def test_refusal_keeps_pictures_of_other_detections(stack: Stack) -> None:
    first = stack.submit("alice", picture(1))
    leave(stack, NEEDED // 2)
    with pytest.raises(ServiceError) as refused:
        stack.submit("alice", picture(1))
    assert refused.value.code == "storage_full"
    assert stack.worker.store.get_image(first.id) == picture(1)


def test_uploads_are_refused_before_the_body_if_memory_is_full(stack: Stack) -> None:
    for number in range(4):
        stack.submit("alice", picture(number))
    leave(stack, -1000)
    refusal = stack.ask("bob").refusal
    assert refusal is not None
    assert refusal.code == "storage_full"
    assert refusal.retry_after == 10
    finish(stack, stack.worker.queued()[0])
    assert stack.ask("bob").refusal is None


def test_too_large_result_is_refused_for_good(stack: Stack) -> None:
    stack.redis.config_set("maxmemory", 100 * MEGABYTE)
    with pytest.raises(ServiceError) as refused:
        stack.submit("alice", encode(Image.new("L", (8000, 8000)), "PNG"))
    assert refused.value.code == "too_many_pixels"
    assert refused.value.retry_after is None
    assert keys_like(stack, "gamma:image:*") == []


def test_reserved_memory_counts_against_the_share(stack: Stack) -> None:
    leave(stack, 4 * MEGABYTE)
    for number in range(60):
        if (refusal := stack.ask("alice").refusal) is not None:
            break
        stack.submit("alice", picture(number))
    assert refusal is not None
    assert refusal.code == "storage_share_full"
    assert 1.4 * MEGABYTE < reserved(stack) < 2.4 * MEGABYTE
    with pytest.raises(ServiceError) as refused:  # admitted before the others were accepted
        stack.submit("alice", picture(61))
    assert refused.value.code == "storage_share_full"
    assert stack.ask("bob").refusal is None
    stack.submit("bob", picture(62))


def test_reserved_memory_counts_against_a_callers_limit(
    redis: Redis, redis_url: str, file: Path
) -> None:
    file.write_text(table("alice", key(OLD), storage_limit='"200KiB"'))
    stack = Stack(redis, redis_url, file)
    stack.submit("alice", picture(1))
    stack.submit("alice", picture(2))
    refusal = stack.ask("alice").refusal
    assert refusal is not None
    assert refusal.code == "storage_share_full"


def test_shorter_retention_keeps_earlier_reservations(
    stack: Stack, redis: Redis, redis_url: str, file: Path
) -> None:
    stack.submit("alice", picture(1))
    lives = redis.pexpiretime("gamma:reservations")
    shorter = Stack(redis, redis_url, file, queue_limit=10_000, retention=60)
    shorter.submit("alice", picture(2))
    for name in ("reservations", "reserved", "waiting", "waiting:alice"):
        assert redis.pexpiretime(f"gamma:{name}") >= lives


def test_lost_reply_does_not_reserve_twice(stack: Stack) -> None:
    picture = new_picture()
    order = Submission("alice", picture, View.TILED, idempotency_key="a key")
    assert stack.service.submit(order).id == stack.service.submit(order).id
    assert reserved(stack) == RECORD_BYTES + 2 * 16 * 16
    assert sum(map(len, StandIn.MASKS.values())) < reserved(stack)
