"""Prometheus metrics of a worker process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from itertools import product

import torch
from prometheus_client import (
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

from app.contract.schemas import Timings, Verdict, WorkerInfo
from worker.policy import Reason

_DURATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)  # s
_CROPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORES = tuple(step / 20 for step in range(1, 21))


class JobOutcome(StrEnum):
    """What became of a job."""

    SUCCEEDED = "succeeded"
    """The detection has its result."""
    UNREADABLE = "unreadable"
    """The picture is at fault: the record says how."""
    FAILED = "failed"
    """We are: no further try is left."""
    SKIPPED = "skipped"
    """Nothing to do: the detection was deleted, or had waited too long, before it was taken."""


JOBS = Counter("gamma_jobs", "Jobs that ended here, by outcome", ["outcome"])
JOB_ERRORS = Counter("gamma_job_errors", "Tries that ended in an error of ours")
JOBS_IN_HAND = Gauge("gamma_jobs_in_hand", "Jobs taken from the queue and not ended")
QUEUE_WAIT = Histogram(
    "gamma_job_queue_wait_seconds", "From the upload to a worker taking it", buckets=_DURATIONS
)
JOB_DURATION = Histogram(
    "gamma_job_duration_seconds", "From the upload to the final record", buckets=_DURATIONS
)
STAGE_DURATION = Histogram(
    "gamma_stage_duration_seconds",
    "Time in a stage: of a batch (fetch, forward, store) or a picture (decode, encode)",
    ["stage"],
    buckets=_DURATIONS,
)
BATCHES = Counter("gamma_batches", "Forward passes by the reason they left", ["reason"])
BATCH_PICTURES = Histogram(
    "gamma_batch_pictures", "Pictures taken together", buckets=(1, 2, 4, 8, 16, 32, 64)
)
BATCH_SIZE = Histogram("gamma_batch_size", "Crops computed together", buckets=_CROPS)
BATCH_LIMIT = Gauge("gamma_batch_limit", "Most crops that a batch may hold")
CROPS = Counter("gamma_crops", "Crops computed")
SCORE = Histogram("gamma_score", "AI probabilities", ["model_version"], buckets=_SCORES)
VERDICTS = Counter(
    "gamma_verdicts", "Detections that succeeded", ["model_version", "verdict", "manipulated"]
)
WORKER_UP = Gauge("gamma_worker_up", "1 while the worker is warm and takes work")
LAST_SUCCESS = Gauge(
    "gamma_worker_last_success_timestamp_seconds", "When a forward pass last succeeded"
)
WORKER_INFO = Gauge(
    "gamma_worker_info", "Constant 1", ["model", "version", "backbone", "device", "dtype"]
)
OUT_OF_MEMORY = Counter(
    "gamma_out_of_memory", "Forward passes that the device had too little memory for"
)
DEVICE_ERRORS = Counter("gamma_device_errors", "Failures of the device; the worker ends")
DEVICE_MEMORY = Gauge("gamma_gpu_memory_bytes", "Memory of the CUDA device", ["kind"])

for _outcome in JobOutcome:
    JOBS.labels(_outcome)
for _reason in Reason:
    BATCHES.labels(_reason)
for _stage in ("fetch", "decode", "forward", "encode", "store"):
    STAGE_DURATION.labels(_stage)


def expose(info: WorkerInfo, batch_limit: int, host: str, port: int) -> None:
    """Serve the metrics of this process, whose model is warm, on their own port.

    Args:
        info: what the worker says of itself.
        batch_limit: most crops that a batch may hold.
        host: address to bind.
        port: port to bind.

    Raises:
        OSError: the port is taken.
    """
    WORKER_INFO.labels(
        info.model.name, info.model.version, info.backbone, info.device, info.dtype
    ).set(1)
    BATCH_LIMIT.set(batch_limit)
    LAST_SUCCESS.set_to_current_time()  # the warm-up
    SCORE.labels(info.model.version)
    for verdict, manipulated in product(Verdict, (True, False, None)):
        count_verdict(info.model.version, verdict, manipulated, 0)
    if info.device.startswith("cuda"):
        device = torch.device(info.device)
        allocated = DEVICE_MEMORY.labels("allocated")
        allocated.set_function(lambda: float(torch.cuda.memory_allocated(device)))
        reserved = DEVICE_MEMORY.labels("reserved")
        reserved.set_function(lambda: float(torch.cuda.memory_reserved(device)))
        DEVICE_MEMORY.labels("total").set(torch.cuda.get_device_properties(device).total_memory)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    start_http_server(port, host)


def stage(name: str) -> AbstractContextManager[object]:
    """Time what runs inside as a stage."""
    return STAGE_DURATION.labels(name).time()


def count_verdict(
    model_version: str, verdict: Verdict, manipulated: bool | None, count: int = 1
) -> None:
    """Count detections that succeeded; those without masks do not say whether manipulated."""
    label = "unknown" if manipulated is None else str(manipulated).lower()
    VERDICTS.labels(model_version, verdict, label).inc(count)


def observe(timings: Timings) -> None:
    """Enter a finished detection's record of times into the histograms."""
    QUEUE_WAIT.observe(timings.queued)
    JOB_DURATION.observe(timings.total)
