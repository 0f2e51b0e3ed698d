"""Prometheus metrics of a delivery worker; the API exposes those of the queue."""

from __future__ import annotations

from prometheus_client import Counter, Histogram, disable_created_metrics, start_http_server

from app.webhooks.attempts import Outcome

_DURATIONS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)  # s


DELIVERIES = Counter("gamma_webhook_deliveries", "Attempts to deliver a webhook", ["outcome"])
DELIVERY_DURATION = Histogram(
    "gamma_webhook_delivery_seconds", "Duration of an attempt", buckets=_DURATIONS
)

for _outcome in Outcome:
    DELIVERIES.labels(_outcome)


def expose(host: str, port: int) -> None:
    """Serve the metrics of this process.

    Raises:
        OSError: If the port is in use.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    start_http_server(port, host)
