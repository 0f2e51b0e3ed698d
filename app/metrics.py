"""Prometheus metrics of the API process, and of the queue it feeds."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from prometheus_client import REGISTRY, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from app.jobs import JobQueue
from app.store import Store

_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # s
_POWERS_OF_TWO = tuple(float(2**power) for power in range(12, 28, 2))

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
REJECTIONS = Counter("gamma_http_rejections", "Requests refused, by error code", ["reason"])
UPLOAD_BYTES = Histogram("gamma_upload_bytes", "Accepted uploads", buckets=_POWERS_OF_TWO)
IMAGE_PIXELS = Histogram("gamma_image_pixels", "Accepted pictures", buckets=_POWERS_OF_TWO)


class _Backlog(Collector):
    """Reads the queue at scrape time; never runs RQ's registry clean-up."""

    def __init__(self, queue: JobQueue, store: Store) -> None:
        self._queue = queue
        self._store = store

    def describe(self) -> Iterable[Metric]:
        return ()  # registration must not need Redis

    def collect(self) -> Iterable[Metric]:
        try:
            depth, age = self._queue.depth(), self._queue.oldest_age()
            workers = len(self._store.live_workers())
        except RedisError as error:
            # The gauges are then absent, which is what alerts look for; the rest is still served.
            log.error("backlog_unreadable", error=str(error))
            return
        yield GaugeMetricFamily("gamma_queue_depth", "Jobs that wait", depth)
        yield GaugeMetricFamily("gamma_queue_oldest_age_seconds", "Wait of the oldest job", age)
        yield GaugeMetricFamily("gamma_workers", "Live, warm workers", workers)


def expose(queue: JobQueue, store: Store, host: str, port: int) -> None:
    """Serve this process's metrics, and the backlog, on their own port.

    Raises:
        OSError: the port is taken.
    """
    REGISTRY.register(_Backlog(queue, store))
    start_http_server(port, host)
