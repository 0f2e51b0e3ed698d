"""Log of the attempts to deliver an owner's webhooks: the latest, in a Redis stream."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import cast

from pydantic import BaseModel, Field
from redis import Redis

_MAX_ATTEMPTS = 1000  # of an owner; older ones are dropped
_LIFETIME = 7 * 86_400  # s, after the owner's latest attempt
_FIELD = "attempt"


class Outcome(StrEnum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    """Failed, will be retried."""
    FAILED = "failed"
    """Failed, no retries left."""
    REFUSED = "refused"
    """The target is not allowed."""


class Attempt(BaseModel):
    """One attempt to deliver a message."""

    id: str = Field(description="id of the message, as in the header `webhook-id`")
    detection_id: str | None = Field(description="null: a test event")
    host: str = Field(description="host of the URL")
    tried_at: datetime
    number: int = Field(ge=1, description="number of this attempt")
    outcome: Outcome
    status: int | None = Field(description="HTTP status of the answer; null: there was none")
    reason: str = Field(description="status, or why there was no answer")
    seconds: float = Field(ge=0, description="duration of the attempt")


class AttemptLog:
    """The latest attempts of each owner. Thread-safe."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def add(self, owner: str, attempt: Attempt) -> None:
        """Record an attempt."""
        key = _key(owner)
        with self._redis.pipeline() as pipeline:
            entry = {_FIELD: attempt.model_dump_json()}
            pipeline.xadd(key, entry, maxlen=_MAX_ATTEMPTS, approximate=True)  # type: ignore[arg-type]
            pipeline.expire(key, _LIFETIME)
            pipeline.execute()

    def latest(self, owner: str, limit: int, detection_id: str | None = None) -> list[Attempt]:
        """The latest attempts, newest first.

        Args:
            owner: name of the caller.
            limit: maximum number.
            detection_id: only those of this detection.
        """
        count = limit if detection_id is None else _MAX_ATTEMPTS
        found = cast(
            list[tuple[bytes, dict[bytes, bytes]]],
            self._redis.xrevrange(_key(owner), count=count),
        )
        attempts = [Attempt.model_validate_json(entry[_FIELD.encode()]) for _, entry in found]
        wanted = [one for one in attempts if detection_id in (None, one.detection_id)]
        return wanted[:limit]


def _key(owner: str) -> str:
    return f"gamma:webhook-attempts:{owner}"
