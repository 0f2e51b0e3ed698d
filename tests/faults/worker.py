"""A real worker whose detector misbehaves as it is told.

    python -m tests.faults.worker '{"redis_url": "unix:///tmp/redis.sock", "burst": true}'

The keys are those of `Orders`. Everything but the network is real: RQ, Redis, the pipeline, the
engine's handling of memory, decoding, cutting and merging.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from app.command import logs
from app.contract.settings import Settings
from app.contract.store import Store
from model.canary import Canary
from model.config import GammaConfig, Thresholds
from model.detector import Detector
from model.engine import CropOutputs, CropPosition, DeviceError, InferenceEngine
from model.findings import ModelInfo
from model.views import Crops, View
from pictures.decoders import Decoders
from worker import batch_worker, jobs, pipeline
from worker.batch_worker import BatchWorker, worker_name
from worker.processing import Processor, describe
from worker.retry_policy import connect_with_retries

CROP = 32  # pixels; small, so that only what is tested takes time
POISON = (255, 0, 0)
KILLER = (0, 0, 255)  # not black, which is what is left of many a bomb
ODD = (0, 255, 0)
STAGES = ("decode", "forward", "conclude")


@dataclass
class Orders:
    """How the worker is to run and to misbehave."""

    redis_url: str
    name: str = field(default_factory=worker_name)
    log: str | None = None
    max_batch: int = 8
    burst: bool = False
    max_jobs: int | None = None
    sleep: dict[str, float] = field(default_factory=dict)
    """Seconds that each call of a stage takes longer."""
    touch: str | None = None
    """Folder in which each stage that is reached leaves a file of its name."""
    stall: str | None = None
    """Stage that goes no further while there is no file `go` in that folder."""
    too_many: int | None = None
    """A batch of so many crops does not fit into the memory."""
    largest: int | None = None
    """A batch of more crops raises."""
    noise: bool = False
    """Masks are noise, which compresses least."""
    device_error_at: int | None = None
    """The device fails for good in its n-th batch."""
    nan_at: int | None = None
    """From its n-th batch on the network answers NaN."""
    wrong_at: int | None = None
    """From its n-th batch on the network answers with wrong numbers."""
    idle_check: float | None = None
    """Seconds that take the place of the minutes until an idle worker checks its model."""
    sick_after: float | None = None
    hopeless_after: float | None = None
    """Seconds that take the place of the worker's minutes."""
    abandoned_after: int | None = None
    """Seconds that take the place of those after which work without a heartbeat is abandoned."""
    store: str | None = None
    """Bucket of pictures and masks."""
    retry_for: float = 120.0
    """Seconds that an outage of the bucket is waited out."""
    stop_timeout: float = 60.0
    """Seconds in which it ends after a SIGTERM."""
    environment: dict[str, str] = field(default_factory=dict)


class Stages:
    """Touches, sleeps and stalls."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def reach(self, stage: str) -> None:
        folder = Path(self._orders.touch) if self._orders.touch else None
        if folder:
            (folder / stage).touch()
        while folder and self._orders.stall == stage and not (folder / "go").exists():
            time.sleep(0.02)
        time.sleep(self._orders.sleep.get(stage, 0))


class Engine(InferenceEngine):
    """The real engine around a network that computes nothing."""

    def __init__(self, orders: Orders, stages: Stages) -> None:
        self.device = torch.device("cpu")
        self.batch_limit = orders.max_batch
        self.glances = False
        self._orders = orders
        self._stages = stages
        self._batches = 0

    def has_finite_weights(self) -> bool:
        return True

    def _compute(self, tiles: torch.Tensor, places: Sequence[CropPosition]) -> CropOutputs:
        self._batches += 1
        self._stages.reach("forward")
        orders, count = self._orders, len(tiles)
        if orders.device_error_at is not None and self._batches >= orders.device_error_at:
            raise DeviceError("the device has failed")
        if orders.too_many is not None and count >= orders.too_many:
            raise torch.OutOfMemoryError("out of memory")
        if orders.largest is not None and count > orders.largest:
            raise ValueError("too large a batch")
        if (tiles[:, 0, 0] == torch.tensor(KILLER)).all(-1).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (tiles[:, 0, 0] == torch.tensor(POISON)).all(-1).any():
            raise ValueError("a poison picture")
        size = (2, count, CROP // 4, CROP // 4)
        ai, manipulation = 3 * torch.randn(size) if orders.noise else torch.zeros(size)
        logits = torch.zeros(count)
        logits[(tiles[:, 0, 0] == torch.tensor(ODD)).all(-1)] = torch.nan
        if orders.nan_at is not None and self._batches >= orders.nan_at:
            logits += torch.nan
        if orders.wrong_at is not None and self._batches >= orders.wrong_at:
            logits += 1
        return CropOutputs(logits, ai, manipulation)


class FaultyDetector(Detector):
    """The real detector around that engine."""

    def __init__(self, orders: Orders) -> None:
        self._stages = Stages(orders)
        self._engine = Engine(orders, self._stages)
        self._max_pixels = 10**8
        self._max_tiles = self._tile_budget = 64
        self._config = GammaConfig()
        black = np.zeros((1, CROP, CROP, 3), np.uint8)
        self._canary = Canary(black, np.full((1, 3), 0.5, np.float32))
        self.info = ModelInfo(
            name="faulty",
            version="1",
            trained=False,
            backbone="none",
            parameters=0,
            crop_size=CROP,
            device="cpu",
            dtype="float32",
            thresholds=Thresholds(0.4, 0.6, 0.5, 0.1),
            glance_thresholds=Thresholds(),
            glances=False,
            checkpoint=None,
            results=None,
            digest=None,
        )

    def cut(self, picture, view: View) -> Crops:
        self._stages.reach("decode")
        return super().cut(picture, view)

    def conclude(self, layout, outputs, sight):
        self._stages.reach("conclude")
        return super().conclude(layout, outputs, sight)


def run(orders: Orders) -> None:
    """Work as `gamma worker` does."""
    if orders.log:
        with open(orders.log, "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    os.environ.update(orders.environment)
    settings = Settings(redis_url=orders.redis_url, store=orders.store)
    logs.configure(settings)
    if orders.sick_after is not None:
        batch_worker.SICK_AFTER = orders.sick_after
        batch_worker.HOPELESS_AFTER = orders.hopeless_after or 600
        jobs.BEAT_INTERVAL = 0.1
    if orders.abandoned_after is not None:
        jobs.EXECUTION_TTL = orders.abandoned_after
        jobs.BEAT_INTERVAL = jobs.MAINTENANCE_INTERVAL = 1
    if orders.idle_check is not None:
        pipeline._IDLE_CHECK = orders.idle_check
    redis = connect_with_retries(orders.redis_url)
    detector = FaultyDetector(orders)
    info = describe(detector, orders.name)
    store = Store.open(redis, settings, retry_for=orders.retry_for)
    with closing(Decoders(2, max_pixels=10**8)) as decoders:
        processor = Processor(detector, info, store, decoders)
        worker = BatchWorker(
            "gamma",
            redis,
            processor,
            info,
            max_batch=orders.max_batch,
            stop_timeout=orders.stop_timeout,
        )
        worker.work(burst=orders.burst, max_jobs=orders.max_jobs, logging_level="WARNING")
    if worker.failure is not None:
        raise worker.failure


if __name__ == "__main__":
    run(Orders(**json.loads(sys.argv[1])))
