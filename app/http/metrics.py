"""Prometheus metrics of the API process, of Redis and of the queues.

`docs/metrics.md` lists the metrics of all processes; a test compares it with the code.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import structlog
from fastapi.routing import APIRoute
from prometheus_client import (
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from starlette.routing import BaseRoute

from app.contract.client import connect
from app.contract.jobs import Backlog, ask_backlog, ask_detections, read_backlog, read_detections
from app.contract.reservation import ask_reserved
from app.contract.schemas import ErrorCode
from app.contract.settings import Settings
from app.contract.workers import ask_failures, ask_suspended, count_workers
from app.webhooks import queue as webhooks

UNCOUNTED = frozenset({"/livez", "/readyz"})
"""Routes without metrics, because orchestrators poll them."""

_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # s
_POWERS_OF_TWO = tuple(float(2**power) for power in range(12, 28, 2))
_UNDOCUMENTED_STATUSES = frozenset({500, 503})  # possible on every route
_REDIS_TIMEOUT = 2.0  # s; a scrape must finish within 10 s, even without Redis

log = structlog.get_logger()


REQUESTS = Counter(
    "gamma_http_requests", "HTTP requests by route template", ["method", "route", "status"]
)
REQUEST_DURATION = Histogram(
    "gamma_http_request_duration_seconds",
    "Time to the last byte of the answer",
    ["method", "route"],
    buckets=_DURATIONS,
)
REJECTIONS = Counter("gamma_http_rejections", "Refused requests, by error code", ["reason"])
UPLOAD_BYTES = Histogram("gamma_upload_bytes", "Size of accepted pictures", buckets=_POWERS_OF_TWO)
IMAGE_PIXELS = Histogram(
    "gamma_image_pixels", "Width × height of accepted pictures", buckets=_POWERS_OF_TWO
)
CACHED = Counter("gamma_detections_cached", "Detections answered with an earlier result")
WAITING = Gauge("gamma_http_requests_waiting", "Requests held by `Prefer: wait`")

for _code in ErrorCode:
    REJECTIONS.labels(_code)


def start_at_zero(routes: Iterable[BaseRoute]) -> None:
    """Initialise the series of these routes to 0, so that `rate()` counts the first request."""
    for route in routes:
        if isinstance(route, APIRoute) and route.path not in UNCOUNTED:
            statuses = {route.status_code or 200, *map(int, route.responses)}
            for method in route.methods or ():
                REQUEST_DURATION.labels(method, route.path)
                for status in statuses | _UNDOCUMENTED_STATUSES:
                    REQUESTS.labels(method, route.path, status)


class _QueueCollector(Collector):
    """Collects metrics of queues, workers and Redis, in one round trip per scrape.

    If Redis is unavailable, `gamma_redis_up` is 0 and the other metrics are absent.
    """

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings.required_redis_url, retries=0, timeout=_REDIS_TIMEOUT)
        self._settings = settings

    def describe(self) -> Iterable[Metric]:
        return ()  # registration must not need Redis

    def collect(self) -> Iterable[Metric]:
        settings = self._settings
        yield _gauge(
            "gamma_queue_limit",
            "Number of waiting jobs above which uploads are refused",
            settings.queue_limit,
        )
        started = time.perf_counter()
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                ask_detections(pipeline, settings)
                ask_backlog(pipeline, webhooks.queue_name(settings))
                count_workers(pipeline)
                ask_reserved(pipeline)
                ask_suspended(pipeline)
                ask_failures(pipeline)
                pipeline.time()
                pipeline.info()
                replies = pipeline.execute()
            detections, deliveries, workers, reserved, suspended, *failures, clock, info = replies
            sick, device_failed = failures
        except RedisError as error:
            log.error("redis_unreadable", error=str(error))
            yield _gauge("gamma_redis_up", "Whether Redis answers this process", 0)
            return
        seconds = time.perf_counter() - started
        yield _gauge("gamma_redis_up", "Whether Redis answers this process", 1)
        yield _gauge(
            "gamma_redis_round_trip_seconds", "Time that this scrape waited for Redis", seconds
        )
        yield _gauge(
            "gamma_redis_clock_offset_seconds",
            "How far this process's clock is ahead of Redis's",
            time.time() - seconds / 2 - (clock[0] + clock[1] / 1e6),
        )
        yield from _redis(info, settings)
        yield _gauge(
            "gamma_redis_memory_limit_bytes",
            "Memory above which uploads are refused; 0: no limit",
            info["maxmemory"] * settings.storage_limit,
        )
        yield _gauge(
            "gamma_redis_reserved_bytes",
            "Memory reserved for results of accepted uploads",
            reserved,
        )
        yield from _queue("gamma_queue", read_detections(detections))
        yield from _queue("gamma_webhook_queue", read_backlog(deliveries))
        yield _gauge("gamma_workers", "Warm workers with a heartbeat in the last 35 s", workers)
        yield _gauge("gamma_queue_suspended", "Whether the queue is suspended", suspended)
        yield _gauge(
            "gamma_model_sick",
            "Whether a worker's model failed its check in the last 10 minutes",
            sick,
        )
        yield _gauge(
            "gamma_device_failed",
            "Whether a worker's device failed in the last 10 minutes",
            device_failed,
        )


def _queue(prefix: str, backlog: Backlog) -> Iterator[Metric]:
    yield _gauge(f"{prefix}_depth", "Number of waiting jobs", backlog.depth)
    yield _gauge(
        f"{prefix}_oldest_age_seconds", "Age of the oldest waiting job", backlog.oldest_age
    )


def _redis(info: Mapping[str, Any], settings: Settings) -> Iterator[Metric]:
    if settings.require_append_only or info["aof_enabled"]:
        durable = info["aof_enabled"] == 1 and info["aof_last_write_status"] == "ok"
        yield _gauge(
            "gamma_redis_append_only", "Whether Redis writes its append-only file", durable
        )
    yield _gauge("gamma_redis_clients", "Connections to Redis", info["connected_clients"])
    yield _gauge("gamma_redis_memory_bytes", "Memory used by Redis", info["used_memory"])
    yield CounterMetricFamily(
        "gamma_redis_commands", "Commands run by Redis", info["total_commands_processed"]
    )
    yield CounterMetricFamily(
        "gamma_redis_evicted_keys",
        "Keys evicted because Redis ran out of memory",
        info["evicted_keys"],
    )


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value)


def expose(settings: Settings) -> None:
    """Serve the metrics of this process, of Redis and of the queues.

    Raises:
        OSError: If the port is in use.
        RedisUrlMissingError: If no Redis is configured.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    REGISTRY.register(_QueueCollector(settings))
    start_http_server(settings.metrics_port, settings.metrics_host)
