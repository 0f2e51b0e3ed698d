"""A detection that asks to be accepted, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.contract import records
from app.contract.schemas import Detection, Status


@dataclass(frozen=True)
class Application:
    """A detection that asks to be accepted.

    Attributes:
        detection: its record, queued.
        owner: the caller, who alone will see it.
        deadline: from then on a detection that still waits in the queue is expired.
        idempotency_key: the caller's name for this request, if it gave one.
        webhook_url: where the result is announced, if anywhere.
        turn: how long its turn in the queue is, beside other owners': its work by their weight.
        weight: share of the storage, beside other owners'; 0: nobody else is to be protected.
        cache: whether a result that the same picture already has may serve, and serve others.
    """

    detection: Detection
    owner: str
    deadline: datetime
    idempotency_key: str | None = None
    webhook_url: str | None = None
    cache: bool = True
    turn: float = 1.0
    weight: float = 0.0


class Reception(StrEnum):
    """What became of an application."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"  # this request was accepted before: that detection is the answer
    MISMATCH = "mismatch"  # its idempotency key belongs to another request
    KNOWN = "known"  # not accepted: that detection already has the result
    FULL = "full"  # not accepted: with the results to come it does not fit into Redis
    TOO_LARGE = "too_large"  # not accepted: its result alone would not fit into Redis
    SHARE_FULL = "share_full"  # not accepted: its owner has its share of Redis
    GONE = "gone"  # not accepted: that detection is no longer there to copy from


def reception_of(
    reply: Sequence[bytes | None], application: Application
) -> tuple[Reception, Detection]:
    """What the script that accepts answered, and the detection that this is about."""
    kind = Reception((reply[0] or b"").decode())
    if kind is Reception.REPEATED:
        first = records.read(reply[1:])
        if first is not None:
            return kind, first
    if kind is Reception.KNOWN and reply[1] is not None:
        return kind, records.parse(reply[1], Status.SUCCEEDED)
    return kind, application.detection
