"""`gamma worker`: one process, one device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.contract.client import connect
from app.contract.ports import check_port
from app.contract.settings import Settings
from app.contract.store import Store
from model.canary import ModelSickError
from model.detector import Detector
from model.engine import DeviceError
from pictures.decoders import Decoders, ProvenanceOptions
from worker import metrics
from worker.batch_worker import BatchWorker, worker_name
from worker.processing import Processor, describe
from worker.provenance import options
from worker.retry_policy import connect_with_retries

_STORE_RETRY = 120.0  # s; as for Redis

log = structlog.get_logger()


def run(settings: Settings, *, burst: bool) -> None:
    """Run a worker until SIGINT or SIGTERM, then stop within `GAMMA_STOP_TIMEOUT`.

    After an error its jobs are put back into the queue; a supervisor should start a new process.

    Args:
        settings: settings of the process.
        burst: stop once the queue is empty.

    Raises:
        RedisUrlMissingError: if no Redis is configured.
        StorageSetupError: if a package that `GAMMA_STORE` needs is not installed.
        CheckpointError: if the model cannot be loaded.
        ModelSickError: if the model fails its self-check, at start or later.
        DeviceError: if the device cannot be used or fails later.
        RedisError: if Redis is unavailable for minutes.
        TrustListError: if `GAMMA_TRUST_LIST` cannot be used.
        PortError: if the metrics port is taken.
    """
    origins = options(settings)
    check_port(settings.metrics_host, settings.metrics_port, "GAMMA_METRICS_PORT")
    redis = connect_with_retries(settings.required_redis_url)
    store = Store.open(redis, settings, retry_for=_STORE_RETRY)
    with _reporting_failures(settings):
        _work(settings, redis, store, origins, burst=burst)


def _work(
    settings: Settings, redis: Redis, store: Store, origins: ProvenanceOptions, *, burst: bool
) -> None:
    detector = load_detector(settings)
    detector.warm_up()
    info = describe(detector, worker_name())
    metrics.expose(info, settings.max_batch, settings.metrics_host, settings.metrics_port)
    log.info("worker_ready", **info.model_dump(mode="json"))
    decoders = Decoders(settings.decode_threads, max_pixels=settings.max_pixels, provenance=origins)
    worker = BatchWorker(
        settings.queue,
        redis,
        Processor(detector, info, store, decoders),
        info,
        max_batch=settings.max_batch,
        window=settings.batch_window,
        threads=settings.decode_threads,
        stop_timeout=settings.stop_timeout,
    )
    with closing(decoders):
        # At `info`, RQ repeats this worker's own log lines.
        level = "DEBUG" if settings.log_level == "debug" else "WARNING"
        worker.work(burst=burst, logging_level=level)
    if worker.failure is not None:
        raise worker.failure


@contextmanager
def _reporting_failures(settings: Settings) -> Iterator[None]:
    """Report a sick model or device in Redis, where it can be seen after this process has ended.

    Tries once, since the process has to end even if Redis is unavailable or full.
    """
    try:
        yield
    except ModelSickError as error:
        log.critical("model_sick", reason=str(error))
        with suppress(RedisError), connect(settings.required_redis_url, retries=1) as redis:
            Store(redis).workers.report_sick(str(error))
        raise
    except DeviceError as error:
        log.critical("device_failed", reason=str(error))
        with suppress(RedisError), connect(settings.required_redis_url, retries=1) as redis:
            Store(redis).workers.report_device_failure(str(error))
        raise


def load_detector(settings: Settings) -> Detector:
    """Load the configured detector.

    Raises:
        CheckpointError: if the model cannot be loaded.
        DeviceError: if the device cannot be used.
    """
    return Detector.from_pretrained(
        settings.checkpoint,
        device=settings.device,
        dtype=settings.dtype,
        max_batch=settings.max_batch,
        max_pixels=settings.max_pixels,
        max_tiles=settings.max_tiles,
        tile_budget=None if settings.tile_budget == "auto" else settings.tile_budget,
    )
