"""A worker whose detector injects faults.

    python -m tests.faults.worker '{"redis_url": "unix:///tmp/redis.sock", "burst": true}'

The keys are those of `WorkerOptions`. Only the network is replaced.
"""

from __future__ import annotations

import functools
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
from app.contract.client import connect
from app.contract.settings import Settings
from app.contract.store import Store
from model.canary import Canary
from model.config import GammaConfig
from model.detector import Detector
from model.engine import CropOutputs, CropPosition, DeviceError, InferenceEngine
from model.findings import DetectorInfo
from model.views import Crops
from pictures.decoders import Decoders
from pictures.findings import UNTRAINED, Thresholds, View
from worker import batch_worker, jobs, pipeline, retry_policy
from worker.batch_worker import BatchWorker, worker_name
from worker.processing import Processor, describe

CROP = 32  # pixels; small, to save time
FAILING_COLOUR = (255, 0, 0)
CRASHING_COLOUR = (0, 0, 255)  # not black, as many bombs are when decoded
NAN_COLOUR = (0, 255, 0)
STAGES = ("decode", "forward", "conclude")


@dataclass
class WorkerOptions:
    """Options of the worker and faults to inject."""

    redis_url: str
    name: str = field(default_factory=worker_name)
    log: str | None = None
    max_batch: int = 8
    burst: bool = False
    max_jobs: int | None = None
    sleep: dict[str, float] = field(default_factory=dict)
    """Additional seconds of each call, by stage."""
    touch: str | None = None
    """Folder in which each stage creates a file with its name when reached."""
    stall: str | None = None
    """Stage that blocks until there is a file `go` in that folder."""
    out_of_memory_at: int | None = None
    """Number of crops from which a batch exceeds the device's memory."""
    max_crops: int | None = None
    """Number of crops above which a batch raises."""
    noise: bool = False
    """Masks are noise, which is hard to compress."""
    device_error_at: int | None = None
    """Batch from which the device fails."""
    nan_at: int | None = None
    """Batch from which the network's outputs are NaN."""
    wrong_at: int | None = None
    """Batch from which the network's outputs are wrong."""
    idle_check: float | None = None
    """Replaces `pipeline._IDLE_CHECK` (s)."""
    unready_after: float | None = None
    """Replaces `batch_worker.UNREADY_AFTER` (s)."""
    exit_after: float | None = None
    """Replaces `batch_worker.EXIT_AFTER` (s)."""
    abandoned_after: int | None = None
    """Replaces `jobs.EXECUTION_TTL` (s)."""
    command_timeout: float | None = None
    """Seconds that a Redis command may take until it is repeated, more than 1."""
    decoders: int = 1
    store: str | None = None
    """Bucket of pictures and masks."""
    retry_for: float = 120.0
    """Seconds for which bucket operations are retried."""
    stop_timeout: float = 60.0
    """Seconds from SIGTERM until exit."""
    environment: dict[str, str] = field(default_factory=dict)


class Stages:
    """Touches files, sleeps and stalls as configured."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options

    def reach(self, stage: str) -> None:
        folder = Path(self._options.touch) if self._options.touch else None
        if folder:
            (folder / stage).touch()
        while folder and self._options.stall == stage and not (folder / "go").exists():
            time.sleep(0.02)
        time.sleep(self._options.sleep.get(stage, 0))


def _begin_with(tiles: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    """Whether tiles (N, S, S, 3) begin with 16 pixels of a colour; random pictures do not."""
    return (tiles[:, :4, :4] == torch.tensor(colour)).flatten(1).all(1)


class Engine(InferenceEngine):
    """The engine with a network that computes nothing."""

    def __init__(self, options: WorkerOptions, stages: Stages) -> None:
        self.device = torch.device("cpu")
        self.batch_limit = options.max_batch
        self.glances = False
        self._options = options
        self._stages = stages
        self._batches = 0

    def has_finite_weights(self) -> bool:
        return True

    def _compute(self, tiles: torch.Tensor, places: Sequence[CropPosition]) -> CropOutputs:
        self._batches += 1
        self._stages.reach("forward")
        options, count = self._options, len(tiles)
        if options.device_error_at is not None and self._batches >= options.device_error_at:
            raise DeviceError("the device has failed")
        if options.out_of_memory_at is not None and count >= options.out_of_memory_at:
            raise torch.OutOfMemoryError("out of memory")
        if options.max_crops is not None and count > options.max_crops:
            raise ValueError("too large a batch")
        if _begin_with(tiles, CRASHING_COLOUR).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if _begin_with(tiles, FAILING_COLOUR).any():
            raise ValueError("a poison picture")
        size = (2, count, CROP // 4, CROP // 4)
        ai, manipulation = 3 * torch.randn(size) if options.noise else torch.zeros(size)
        logits = torch.zeros(count)
        logits[_begin_with(tiles, NAN_COLOUR)] = torch.nan
        if options.nan_at is not None and self._batches >= options.nan_at:
            logits += torch.nan
        if options.wrong_at is not None and self._batches >= options.wrong_at:
            logits += 1
        return CropOutputs(logits, ai, manipulation)


class FaultyDetector(Detector):
    """The detector with that engine."""

    def __init__(self, options: WorkerOptions) -> None:
        self._stages = Stages(options)
        self._engine = Engine(options, self._stages)
        self._max_pixels = 10**8
        self._max_tiles = self._tile_budget = 64
        self._config = GammaConfig()
        black = np.zeros((1, CROP, CROP, 3), np.uint8)
        self._canary = Canary(black, np.full((1, 3), 0.5, np.float32))
        self.info = DetectorInfo(
            name="faulty",
            version="1",
            trained=False,
            backbone="none",
            parameters=0,
            crop_size=CROP,
            min_side=0,
            device="cpu",
            dtype="float32",
            thresholds=Thresholds(0.4, 0.6, 0.5, 0.1),
            glance_thresholds=UNTRAINED,
            glances=False,
            checkpoint=None,
            results=None,
            digest=None,
        )

    def cut(self, picture, view: View, frames: int = 1) -> Crops:
        self._stages.reach("decode")
        return super().cut(picture, view, frames)

    def conclude(self, layout, outputs, sight):
        self._stages.reach("conclude")
        return super().conclude(layout, outputs, sight)


def run(options: WorkerOptions) -> None:
    """Run like `gamma worker`."""
    if options.log:
        with open(options.log, "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    os.environ.update(options.environment)
    settings = Settings(redis_url=options.redis_url, store=options.store)
    logs.configure(settings)
    if options.unready_after is not None:
        batch_worker.UNREADY_AFTER = options.unready_after
        batch_worker.EXIT_AFTER = options.exit_after or 600
        jobs.BEAT_INTERVAL = 0.1
    if options.abandoned_after is not None:
        jobs.EXECUTION_TTL = options.abandoned_after
        jobs.BEAT_INTERVAL = jobs.MAINTENANCE_INTERVAL = 1
    if options.idle_check is not None:
        pipeline._IDLE_CHECK = options.idle_check
    if options.command_timeout is not None:
        retry_policy.connect = functools.partial(connect, timeout=options.command_timeout)
        BatchWorker.connection_timeout = options.command_timeout
        BatchWorker.dequeue_timeout = 1
    redis = retry_policy.connect_with_retries(options.redis_url)
    detector = FaultyDetector(options)
    info = describe(detector, options.name)
    store = Store.open(redis, settings, retry_for=options.retry_for)
    with closing(Decoders(options.decoders, max_pixels=10**8)) as decoders:
        processor = Processor(detector, info, store, decoders)
        worker = BatchWorker(
            "gamma",
            redis,
            processor,
            info,
            max_batch=options.max_batch,
            stop_timeout=options.stop_timeout,
        )
        worker.work(burst=options.burst, max_jobs=options.max_jobs, logging_level="WARNING")
    if worker.failure is not None:
        raise worker.failure


if __name__ == "__main__":
    run(WorkerOptions(**json.loads(sys.argv[1])))
