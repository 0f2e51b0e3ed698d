"""Prometheus metrics of a worker process."""

from __future__ import annotations

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

from app.contract.models import WorkerInfo
from app.contract.schemas import Timings
from pictures.findings import Verdict
from pictures.origin import Confidence, Provenance, Says, Source
from worker.policy import Reason

_DURATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)  # s
_CROPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORES = tuple(step / 20 for step in range(1, 21))


class JobOutcome(StrEnum):
    """Outcome of a job."""

    SUCCEEDED = "succeeded"
    """The detection has its result."""
    UNREADABLE = "unreadable"
    """The picture cannot be decoded; the record has the error."""
    FAILED = "failed"
    """An error occurred and no attempt is left."""
    SKIPPED = "skipped"
    """Nothing to do: the detection was deleted or had expired before it was taken."""


JOBS = Counter("gamma_jobs", "Ended jobs, by outcome", ["outcome"])
JOB_ERRORS = Counter("gamma_job_errors", "Attempts that raised an error")
JOBS_IN_HAND = Gauge("gamma_jobs_in_hand", "Jobs taken from the queue and not ended")
QUEUE_WAIT = Histogram(
    "gamma_job_queue_wait_seconds",
    "Time from the upload until a worker takes the job",
    buckets=_DURATIONS,
)
JOB_DURATION = Histogram(
    "gamma_job_duration_seconds", "Time from the upload to the final record", buckets=_DURATIONS
)
STAGE_DURATION = Histogram(
    "gamma_stage_duration_seconds",
    "Time of a batch (fetch, forward, store) or a picture (others) in a stage",
    ["stage"],
    buckets=_DURATIONS,
)
BATCHES = Counter("gamma_batches", "Forward passes, by the reason they started", ["reason"])
BATCH_PICTURES = Histogram(
    "gamma_batch_pictures", "Pictures in a forward pass", buckets=(1, 2, 4, 8, 16, 32, 64)
)
BATCH_SIZE = Histogram("gamma_batch_size", "Crops in a forward pass", buckets=_CROPS)
BATCH_LIMIT = Gauge("gamma_batch_limit", "Maximum number of crops in a batch")
CROPS = Counter("gamma_crops", "Computed crops")
SCORE = Histogram("gamma_score", "AI probabilities", ["model_version"], buckets=_SCORES)
VERDICTS = Counter(
    "gamma_verdicts", "Detections that succeeded", ["model_version", "verdict", "manipulated"]
)
STATEMENTS = Counter(
    "gamma_provenance_statements",
    "Statements of origin in the files of detections that ended",
    ["source", "says", "confidence"],
)
WORKER_UP = Gauge("gamma_worker_up", "Whether the worker is warm and takes work")
LAST_SUCCESS = Gauge(
    "gamma_worker_last_success_timestamp_seconds", "Time of the last successful forward pass"
)
WORKER_INFO = Gauge(
    "gamma_worker_info",
    "Model, device and precision of the worker",
    ["model", "version", "backbone", "device", "dtype"],
)
OUT_OF_MEMORY = Counter(
    "gamma_out_of_memory", "Forward passes that did not fit into the device's memory"
)
DEVICE_MEMORY = Gauge("gamma_gpu_memory_bytes", "Memory of the CUDA device", ["kind"])

for _source, _says in product(Source, (*Says, "nothing")):
    STATEMENTS.labels(_source, _says, Confidence.UNSIGNED)
for _says, _signed in product(
    (*Says, "nothing"), (Confidence.SIGNED_TRUSTED, Confidence.SIGNED_UNTRUSTED)
):
    STATEMENTS.labels(Source.C2PA, _says, _signed)
for _outcome in JobOutcome:
    JOBS.labels(_outcome)
for _reason in Reason:
    BATCHES.labels(_reason)
for _stage in ("fetch", "provenance", "decode", "watermark", "forward", "encode", "store"):
    STAGE_DURATION.labels(_stage)


def expose(info: WorkerInfo, batch_limit: int, host: str, port: int) -> None:
    """Serve this process's metrics on their own port; the model must be warm.

    Args:
        info: model, device and precision of the worker.
        batch_limit: maximum number of crops in a batch.
        host: address to bind.
        port: port to bind.

    Raises:
        OSError: if the port is taken.
    """
    WORKER_INFO.labels(
        info.model.name, info.model.version, info.backbone, info.device, info.dtype
    ).set(1)
    BATCH_LIMIT.set(batch_limit)
    LAST_SUCCESS.set_to_current_time()  # of the warm-up
    SCORE.labels(info.model.version)
    for verdict, manipulated in product(Verdict, (True, False, None)):
        count_verdict(info.model.version, verdict, manipulated, 0)
    count_verdict(info.model.version, None, None, 0)
    if info.device.startswith("cuda"):
        device = torch.device(info.device)
        allocated = DEVICE_MEMORY.labels("allocated")
        allocated.set_function(lambda: float(torch.cuda.memory_allocated(device)))
        reserved = DEVICE_MEMORY.labels("reserved")
        reserved.set_function(lambda: float(torch.cuda.memory_reserved(device)))
        DEVICE_MEMORY.labels("total").set(torch.cuda.get_device_properties(device).total_memory)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    start_http_server(port, host)


def count_verdict(
    model_version: str, verdict: Verdict | None, manipulated: bool | None, count: int = 1
) -> None:
    """Count detections that succeeded.

    Args:
        model_version: version of the model.
        verdict: None if the picture was not judged.
        manipulated: None without masks.
        count: how many.
    """
    label = "unknown" if manipulated is None else str(manipulated).lower()
    VERDICTS.labels(model_version, verdict or "not_judged", label).inc(count)


def count_statements(provenance: Provenance | None) -> None:
    """Count the provenance of a finished detection."""
    for one in provenance.statements if provenance is not None else ():
        STATEMENTS.labels(one.source, one.says or "nothing", one.confidence).inc()


def observe(timings: Timings) -> None:
    """Record the times of a finished detection."""
    QUEUE_WAIT.observe(timings.queued)
    JOB_DURATION.observe(timings.total)
