"""An uploaded picture, from the request to the response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.contract import records, tracing
from app.contract.recorder import CommandRecorder
from app.contract.schemas import Detection, Status
from pictures.findings import View


class Acceptance(StrEnum):
    """Outcome of a submission."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"  # the idempotency key returns an earlier detection
    MISMATCH = "mismatch"  # the idempotency key belongs to another request
    KNOWN = "known"  # not accepted: an earlier detection has the result
    FULL = "full"  # not accepted: no memory left in Redis, including reservations
    TOO_LARGE = "too_large"  # not accepted: the result alone exceeds the memory limit
    SHARE_FULL = "share_full"  # not accepted: the owner's share of Redis is used up
    GONE = "gone"  # not accepted: the earlier detection was deleted


@dataclass(eq=False)
class Submission:
    """A picture submitted for detection.

    Attributes:
        owner: name of the caller, who owns the detection.
        picture: uploaded file.
        view: view of the model.
        frames: maximum number of frames to examine.
        ref_id: the caller's reference.
        idempotency_key: `Idempotency-Key` of the request.
        webhook_url: URL of the webhook.
        meta: ids of the request, for log lines of other processes.
        cache: whether an earlier result may be reused, and this one later.
        turn: length of its turn in the queue: work divided by the owner's weight.
        weight: weight of the owner's share of the storage; 0: there are no other owners.
        detection: queued record; set before it is stored.
        deadline: time at which the detection expires in the queue; set with `detection`.
        job: commands that enqueue it, if it is accepted.
        delivery: commands that create its webhook delivery, if it is accepted.
        outcome: set by the store.
        answer: detection to return; set by the store.
    """

    owner: str
    picture: bytes
    view: View
    frames: int = 1
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
        """Digest of all that must be equal if an idempotency key is repeated."""
        image, view = self.detection.image, self.detection.view
        return records.digest(image.sha256, view.asked, self.ref_id, self.webhook_url)

    @property
    def lifetime(self) -> timedelta:
        """Time from upload to expiry."""
        return self.detection.expires_at - self.detection.created_at

    def settle(self, reply: Sequence[bytes | None]) -> None:
        """Set `outcome` and `answer` from the reply of `scripts.ACCEPT`."""
        self.outcome, self.answer = Acceptance((reply[0] or b"").decode()), self.detection
        if self.outcome is Acceptance.REPEATED:
            self.answer = records.read(reply[1:]) or self.detection
        elif self.outcome is Acceptance.KNOWN and reply[1] is not None:
            self.answer = records.parse(reply[1], Status.SUCCEEDED)
