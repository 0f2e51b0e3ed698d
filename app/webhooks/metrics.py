"""Prometheus metrics of a delivery worker; its queue's are with the API's."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import Counter, Histogram, disable_created_metrics, start_http_server

_DURATIONS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)  # s


class Outcome(StrEnum):
    """How a try ended."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    """It failed, and there will be another."""
    FAILED = "failed"
    """It failed, and was the last."""
    REFUSED = "refused"
    """The rules forbid to go there."""


DELIVERIES = Counter("gamma_webhook_deliveries", "Tries to deliver a webhook", ["outcome"])
DELIVERY_DURATION = Histogram(
    "gamma_webhook_delivery_seconds", "Time of one try", buckets=_DURATIONS
)

for _outcome in Outcome:
    DELIVERIES.labels(_outcome)


def expose(host: str, port: int) -> None:
    """Serve this process's metrics on their own port.

    Raises:
        OSError: the port is taken.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    start_http_server(port, host)
