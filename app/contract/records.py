"""Names and forms of what lies in Redis: where a detection's parts are, and how they are read."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from app.contract.details import detection_error
from app.contract.schemas import Detection, ErrorCode, ModelInfo, Status

WORKERS_KEY = "gamma:workers"
MODEL_KEY = "gamma:model"  # of the worker that was last heard of
SICK_KEY = "gamma:model-sick"  # why a worker's model was found sick, for a while
FIELDS = ("status", "record", "deadline")  # of a record's hash, as `read` takes them
WAITING_KEY = "gamma:waiting"  # sorted set of all that wait, as `waiting_key`
RESERVATIONS_KEY = "gamma:reservations"  # sorted set of what the scripts reserve, by its end
RESERVED_KEY = "gamma:reserved"  # hash: bytes of them by owner, and under '' of all
PROBE_KEY = "gamma:probe"  # written to see that something can be
ERASURE_KEY = "gamma:erasure"  # there as long as the append-only file need not be rewritten
RECORD_LIFETIMES = 2  # the record stays one retention longer than the picture, to say `expired`

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME_DIGITS = 16

CURSOR_PATTERN = rf"^[0-9]{{{_TIME_DIGITS}}}[0-9a-f]{{32}}$"
"""An entry of an index, see `member`."""


class Webhook(BaseModel):
    """Where the end of a detection is to be told, and the RQ job that waits to do it."""

    url: str
    owner: str
    job_id: str
    job_key: str
    queue_key: str
    schedule_key: str


def key(detection_id: str) -> str:
    """Hash: status, record, deadline, owner, and what else has to go with it."""
    return f"gamma:detection:{detection_id}"


def image_key(owner: str, name: str) -> str:
    """An upload as it came; its name is its SHA-256, or the detection if it is not shared."""
    return f"gamma:image:{owner}:{name}"


def masks_key(owner: str, name: str) -> str:
    """Hash: probability maps (PNG) by head; named by what made them, or by the detection."""
    return f"gamma:masks:{owner}:{name}"


def holding_key(holding: bytes) -> str:
    """Key of the bytes that a detection holds, see `app.contract.scripts`."""
    return holding.partition(b" ")[2].decode()


def waiting_key(owner: str) -> str:
    """Sorted set of an owner's detections that wait for a worker, by the time they came (s)."""
    return f"gamma:waiting:{owner}"


def turns_key(queue_key: str) -> str:
    """Hash: each owner's next turn in a queue, and under '' the one that it has come to."""
    return f"gamma:turns:{queue_key}"


def holdings_key(owner: str) -> str:
    """Sorted set of what an owner's detections hold, by its end (ms since epoch)."""
    return f"gamma:holdings:{owner}"


def held_bytes_key(owner: str) -> str:
    """The number of bytes of all that."""
    return f"gamma:held-bytes:{owner}"


def worker_key(name: str) -> str:
    """What a live worker says of itself, JSON."""
    return f"gamma:worker:{name}"


def index_key(owner: str) -> str:
    """Sorted set of an owner's detections, see `member`."""
    return f"gamma:index:{owner}"


def cache_key(owner: str, detection: Detection) -> str:
    """Key of the record that answered last for this owner, picture and view."""
    return f"gamma:cache:{digest(owner, detection.image.sha256, detection.view.mode)}"


def idempotency_key(owner: str, key: str) -> str:
    """Hash: what the request with this idempotency key was, and the record it made."""
    return f"gamma:idempotency:{digest(owner, key)}"


def digest(*parts: str | None) -> str:
    """SHA-256 of several texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read(found: Sequence[bytes | None]) -> Detection | None:
    """The record as of now, from the fields of its hash."""
    status, record, deadline = found
    if status is None or record is None or deadline is None:
        return None
    detection = parse(record, Status(status.decode()))
    now = time.time()
    if detection.expires_at.timestamp() <= now:
        return _expired(detection, ErrorCode.DETECTION_EXPIRED)
    if detection.status is Status.QUEUED and float(deadline) <= now:
        return _expired(detection, ErrorCode.QUEUE_TIMEOUT)
    return detection


def parse(record: bytes, status: Status) -> Detection:
    """The record as it was written; the status is kept beside it."""
    return Detection.model_validate_json(record).model_copy(update={"status": status})


def read_ending(ending: bytes) -> Detection | None:
    """The record of a detection that became final: its status, and what was written.

    Args:
        ending: nothing, if it was deleted.
    """
    status, _, record = ending.partition(b" ")
    return parse(record, Status(status.decode())) if record else None


def _expired(detection: Detection, code: ErrorCode) -> Detection:
    """The record without what is no longer kept."""
    kept = detection.model_dump(include={"id", "ref_id", "image", "view", "created_at"})
    return Detection(
        **kept,
        status=Status.EXPIRED,
        expires_at=detection.expires_at,
        finished_at=detection.finished_at,
        error=detection_error(code),
    )


def member(created_at: datetime, detection_id: str = "") -> str:
    """An entry of an index: in the order of strings, which is that of time; µs since epoch."""
    return f"{(created_at - _EPOCH) // _MICROSECOND:0{_TIME_DIGITS}d}{detection_id}"


def id_of(entry: str) -> str:
    """The detection of an entry."""
    return entry[_TIME_DIGITS:]


def milliseconds(moment: datetime) -> int:
    """Since epoch, as Redis takes it."""
    return int(moment.timestamp() * 1000)


def model_tag(model: ModelInfo | None) -> str:
    """A model in one line, to be compared: other weights are another model; empty: none."""
    return "" if model is None else f"{model.name} {model.version} {model.digest or ''}".rstrip()
