"""Two API replicas with one Redis, two callers, and a fake worker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import ClassVar

import httpx2
import pytest
from redis import Redis

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.models import WorkerInfo
from app.contract.schemas import (
    Detection,
    DetectionError,
    ErrorCode,
    Head,
    MaskInfo,
    Masks,
    ModelInfo,
    Status,
    Timings,
    mask_path,
    overlay_path,
)
from app.contract.store import Store
from pictures.findings import Thresholds, Verdict
from tests.app.replica import Replica, replicas
from tests.conftest import encode, photo

KEYS = {"alice": "the-key-of-alice-1", "bob": "the-key-of-bob-2222"}
MEMORY = 2**28  # bytes of a Redis
MAX_UPLOAD, MAX_BATCH_UPLOAD = 100_000, 250_000  # bytes
_SEEDS = itertools.count()
_THRESHOLDS = Thresholds(uncertain=0.4, ai_generated=0.6, mask=0.5, manipulated_area=0.01)
_TIMINGS = Timings(queued=0.1, decode=0.1, forward=0.1, encode=0.1, total=0.4)


def new_picture() -> bytes:
    """A picture that no test has sent before."""
    return encode(photo(16, 16, next(_SEEDS)), "PNG")


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run in the tests' process do not send its log into their captured output."""
    monkeypatch.setattr("app.command.logs.configure", lambda settings: None)


class StandIn:
    """Fake worker that finishes detections when a test calls it."""

    MASKS: ClassVar = {head: encode(photo(16, 16, 7).convert("L"), "PNG") for head in Head}

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store = Store(redis)
        self.use_model("1")

    def use_model(self, version: str, digest: str | None = None) -> None:
        """Announce a live worker with this version of the model."""
        self.model = ModelInfo(name="stand-in", version=version, digest=digest)
        worker = WorkerInfo(
            name="stand-in",
            model=self.model,
            trained=True,
            backbone="none",
            parameters=1,
            crop_size=16,
            min_side=12,
            thresholds=_THRESHOLDS,
            device="cpu",
            dtype="float32",
        )
        self.store.workers.announce(worker, 600)

    def queued(self) -> list[str]:
        return [name.decode() for name in self.redis.lrange("rq:queue:gamma", 0, -1)]

    def finish(self, name: str, **changes: object) -> bool:
        """Take a detection off the queue and finish it; False if it is deleted or finished."""
        record = self._take(name)
        return record is not None and self.deliver(record, **changes)

    def deliver(self, record: Detection, **changes: object) -> bool:
        """Write the result of a started detection, with these changes."""

        def mask(head: Head) -> MaskInfo:
            urls = {"mask_url": mask_path(record.id, head)}
            urls["overlay_url"] = overlay_path(record.id, head)
            return MaskInfo(area_fraction=0.5, max=0.9, regions=[], **urls)

        update = {
            "status": Status.SUCCEEDED,
            "ai_probability": 0.7,
            "verdict": Verdict.AI_GENERATED,
            "manipulated": False,
            "thresholds": _THRESHOLDS,
            "masks": Masks(ai=mask(Head.AI), manipulation=mask(Head.MANIPULATION)),
            "model": self.model,
            "timings": _TIMINGS,
            "finished_at": datetime.now(UTC),
            **changes,
        }
        with self.redis.pipeline() as pipeline:
            made = {record.id: self.MASKS if update["masks"] else {}}
            masks = self.store.keep_masks(made)[record.id]
            self.store.finish(pipeline, record.model_copy(update=update), masks)
            return bool(pipeline.execute()[0])

    def fail(self, name: str) -> None:
        assert self._take(name) is not None
        assert self.store.fail(name, DetectionError(code=ErrorCode.IMAGE_TRUNCATED, detail="short"))

    def take(self, name: str) -> Detection:
        """Take a detection off the queue."""
        record = self._take(name)
        assert record is not None
        return record

    def _take(self, name: str) -> Detection | None:
        self.redis.lrem("rq:queue:gamma", 1, name)
        return self.store.start([name]).get(name)


def wait_for(condition) -> None:
    """Wait until the condition is true; fails after a timeout."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for the tests of one file."""
    with private_redis(tmp_path_factory.mktemp("redis"), MEMORY) as (url, _):
        yield url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """The same Redis, empty and with the default memory limit."""
    with connect(redis_url) as client:
        client.flushall()
        yield client
        client.config_set("maxmemory", MEMORY)


@pytest.fixture(scope="session")
def pair_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_redis(tmp_path_factory.mktemp("redis"), MEMORY) as (url, _):
        yield url


@pytest.fixture(scope="session")
def pair(pair_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Two replicas with keys, small limits and no worker."""
    environment = {
        "GAMMA_API_KEYS": ",".join(f"{name}={secret}" for name, secret in KEYS.items()),
        "GAMMA_MAX_UPLOAD": str(MAX_UPLOAD),
        "GAMMA_MAX_BATCH_UPLOAD": str(MAX_BATCH_UPLOAD),
    }
    with replicas(pair_redis_url, tmp_path_factory.mktemp("pair"), 2, **environment) as running:
        yield running


@pytest.fixture
def standin(pair_redis_url: str) -> Iterator[StandIn]:
    with connect(pair_redis_url) as redis:
        yield StandIn(redis)


@pytest.fixture
def alice(pair: list[Replica]) -> Iterator[httpx2.Client]:
    with pair[0].client(KEYS["alice"]) as client:
        yield client


@pytest.fixture
def alice_elsewhere(pair: list[Replica]) -> Iterator[httpx2.Client]:
    """The same caller, at the other replica."""
    with pair[1].client(KEYS["alice"]) as client:
        yield client


@pytest.fixture
def bob(pair: list[Replica]) -> Iterator[httpx2.Client]:
    with pair[0].client(KEYS["bob"]) as client:
        yield client


def post(client: httpx2.Client, picture: bytes | None = None, /, **given: str) -> httpx2.Response:
    """Submit a picture; `prefer` and `idempotency_key` are header fields, others form fields."""
    names = {"prefer": "Prefer", "idempotency_key": "Idempotency-Key"}
    headers = {names[name]: given.pop(name) for name in names if name in given}
    return client.post(
        "/v1/detections",
        files={"file": new_picture() if picture is None else picture},
        data=given,
        headers=headers,
    )
