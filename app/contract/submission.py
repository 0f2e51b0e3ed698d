"""An uploaded picture, from the request to the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.contract import records, tracing
from app.contract.recorder import CommandRecorder
from app.contract.schemas import Detection, Status, View


class Acceptance(StrEnum):
    """What became of a submission."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"  # this request was accepted before: that detection is the answer
    MISMATCH = "mismatch"  # its idempotency key belongs to another request
    KNOWN = "known"  # not accepted: that detection already has the result
    FULL = "full"  # not accepted: with the results to come it does not fit into Redis
    TOO_LARGE = "too_large"  # not accepted: its result alone would not fit into Redis
    SHARE_FULL = "share_full"  # not accepted: its owner has its share of Redis
    GONE = "gone"  # not accepted: that detection is no longer there to copy from


@dataclass(eq=False)
class Submission:
    """A picture that a caller wants to be examined.

    Attributes:
        owner: name of the caller, who alone will see the detection.
        picture: the file as it came.
        view: how to look at it.
        ref_id: the caller's own reference.
        idempotency_key: the caller's name for this request: repeated, it has the same answer.
        webhook_url: where the result is announced.
        meta: names the request in the log lines of other processes.
        cache: whether a result that the same picture already has may serve, and serve others.
        turn: length of its turn in the queue, beside other owners': its work by their weight.
        weight: share of the storage, beside other owners'; 0: nobody else is to be protected.
        detection: its record, queued; set before it is stored.
        deadline: when the detection expires if it still waits in the queue; set with it.
        job: commands that put it into the queue, if it is accepted.
        delivery: commands that plan its webhook, if it is accepted.
        outcome: what became of it; set by the store.
        answer: the detection that answers the request; set by the store.
    """

    owner: str
    picture: bytes
    view: View
    ref_id: str | None = None
    idempotency_key: str | None = None
    webhook_url: str | None = None
    meta: Mapping[str, str] = field(default_factory=tracing.meta)
    cache: bool = True
    turn: float = 1.0
    weight: float = 0.0
    detection: Detection = field(init=False)
    deadline: datetime = field(init=False)
    job: CommandRecorder | None = None
    delivery: CommandRecorder | None = None
    outcome: Acceptance = field(init=False)
    answer: Detection = field(init=False)

    def fingerprint(self) -> str:
        """What has to be the same for a repeated idempotency key."""
        image, view = self.detection.image, self.detection.view
        return records.digest(image.sha256, view.mode, self.ref_id, self.webhook_url)

    @property
    def lifetime(self) -> timedelta:
        """From the upload until picture and result are removed."""
        return self.detection.expires_at - self.detection.created_at

    def settle(self, reply: Sequence[bytes | None]) -> None:
        """Read what the script that accepts answered."""
        self.outcome, self.answer = Acceptance((reply[0] or b"").decode()), self.detection
        if self.outcome is Acceptance.REPEATED:
            self.answer = records.read(reply[1:]) or self.detection
        elif self.outcome is Acceptance.KNOWN and reply[1] is not None:
            self.answer = records.parse(reply[1], Status.SUCCEEDED)
