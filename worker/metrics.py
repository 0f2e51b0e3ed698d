"""Prometheus metrics of a worker process."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from app.schemas import Timings, WorkerInfo

_DURATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)  # s
_CROPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORES = tuple(step / 20 for step in range(1, 21))

JOBS = Counter("gamma_jobs", "Detections that ended here", ["outcome"])
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
CROPS = Counter("gamma_crops", "Crops computed")
SCORE = Histogram("gamma_score", "AI probabilities", ["model_version"], buckets=_SCORES)
WORKER_UP = Gauge("gamma_worker_up", "1 while the worker is warm and takes work")
LAST_SUCCESS = Gauge(
    "gamma_worker_last_success_timestamp_seconds", "When a forward pass last succeeded"
)
WORKER_INFO = Gauge(
    "gamma_worker_info", "Constant 1", ["model", "version", "backbone", "device", "dtype"]
)
DEVICE_MEMORY = Gauge("gamma_gpu_memory_bytes", "Memory of the CUDA device", ["kind"])


def expose(info: WorkerInfo, host: str, port: int) -> None:
    """Serve this process's metrics on their own port.

    Raises:
        OSError: the port is taken.
    """
    WORKER_INFO.labels(
        info.model.name, info.model.version, info.backbone, info.device, info.dtype
    ).set(1)
    if info.device.startswith("cuda"):
        device = torch.device(info.device)
        allocated = DEVICE_MEMORY.labels("allocated")
        allocated.set_function(lambda: float(torch.cuda.memory_allocated(device)))
        reserved = DEVICE_MEMORY.labels("reserved")
        reserved.set_function(lambda: float(torch.cuda.memory_reserved(device)))
    start_http_server(port, host)


def stage(name: str) -> AbstractContextManager[object]:
    """Time what runs inside as a stage."""
    return STAGE_DURATION.labels(name).time()


def observe(timings: Timings) -> None:
    """Enter a finished detection's record of times into the histograms."""
    QUEUE_WAIT.observe(timings.queued)
    JOB_DURATION.observe(timings.total)
