"""Prometheus metrics of reviews, in the API process."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from app.contract.reviews import Decision

REVIEWS = Counter("gamma_reviews", "Stored decisions", ["decision"])
DATABASE_ERRORS = Counter(
    "gamma_reviews_database_errors", "Calls of the reviews' database that failed"
)
DATABASE_UP = Gauge(
    "gamma_reviews_database_up", "Whether the last call of the reviews' database succeeded"
)

for _decision in Decision:
    REVIEWS.labels(_decision)
