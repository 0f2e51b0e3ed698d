"""Redis keys, and parsing of detection records."""

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
MODEL_KEY = "gamma:model"  # model of the worker with the latest heartbeat
SICK_KEY = "gamma:model-sick"  # reason of a failed model check; expires
DEVICE_FAILED_KEY = "gamma:device-failed"  # what the device of a worker said; expires
FIELDS = ("status", "record", "deadline")  # of a record's hash, in the order of `read`
WAITING_KEY = "gamma:waiting"  # sorted set of all waiting detections, as `waiting_key`
RESERVATIONS_KEY = "gamma:reservations"  # sorted set of memory reservations, by expiry
RESERVED_KEY = "gamma:reserved"  # hash: reserved bytes by owner; '' is the total
PROBE_KEY = "gamma:probe"  # written to check that Redis accepts writes
ERASURE_KEY = "gamma:erasure"  # exists until the next rewrite of the append-only file is due
RECORD_LIFETIMES = 2  # records outlive pictures by one retention time, to report `expired`

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME_DIGITS = 16

CURSOR_PATTERN = rf"^[0-9]{{{_TIME_DIGITS}}}[0-9a-f]{{32}}$"
"""A member of an index, see `member`."""


class Webhook(BaseModel):
    """URL of a detection's webhook, and its delivery job."""

    url: str
    owner: str
    job_id: str
    job_key: str
    queue_key: str
    schedule_key: str


def key(detection_id: str) -> str:
    """Hash: status, record, deadline, owner and related keys of a detection."""
    return f"gamma:detection:{detection_id}"


def image_key(owner: str, name: str) -> str:
    """Entry of an upload; `name` is its SHA-256, or the detection id if it is not shared."""
    return f"gamma:image:{owner}:{name}"


def masks_key(owner: str, name: str) -> str:
    """Hash: entries of masks (PNG) by head; `name` as in `image_key`, or a digest of the inputs."""
    return f"gamma:masks:{owner}:{name}"


def holding_key(holding: bytes) -> str:
    """Key in a holding, see `app.contract.scripts`."""
    return holding.partition(b" ")[2].decode()


def waiting_key(owner: str) -> str:
    """Sorted set of an owner's waiting detections, by time of arrival (s since epoch)."""
    return f"gamma:waiting:{owner}"


def turns_key(queue_key: str) -> str:
    """Hash: each owner's next turn in a queue; '' is the current turn of the queue."""
    return f"gamma:turns:{queue_key}"


def holdings_key(owner: str) -> str:
    """Sorted set of an owner's holdings, by expiry (ms since epoch)."""
    return f"gamma:holdings:{owner}"


def held_bytes_key(owner: str) -> str:
    """Total size of an owner's holdings in bytes."""
    return f"gamma:held-bytes:{owner}"


def events_key(owner: str) -> str:
    """Stream of an owner's latest endings: id and status of each detection."""
    return f"gamma:events:{owner}"


def worker_key(name: str) -> str:
    """JSON of a live worker's `WorkerInfo`."""
    return f"gamma:worker:{name}"


def index_key(owner: str) -> str:
    """Sorted set of an owner's detections, see `member`."""
    return f"gamma:index:{owner}"


def cache_key(owner: str, detection: Detection) -> str:
    """Key of the latest record with a result for this owner, picture, view and frames."""
    return f"gamma:cache:{digest(owner, detection.image.sha256, detection.view.asked)}"


def idempotency_key(owner: str, key: str) -> str:
    """Hash: fingerprint of the request with this idempotency key, and the key of its record."""
    return f"gamma:idempotency:{digest(owner, key)}"


def digest(*parts: str | None) -> str:
    """SHA-256 of several strings."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read(found: Sequence[bytes | None]) -> Detection | None:
    """Parse the fields of a record's hash; None if it is missing.

    The status is `expired` if the retention time or the deadline in the queue has passed.
    """
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
    """Parse a stored record, whose status is stored separately."""
    return Detection.model_validate_json(record).model_copy(update={"status": status})


def read_ending(ending: bytes) -> Detection | None:
    """Parse `STATUS RECORD` of a finished detection; None if it is empty (deleted)."""
    status, _, record = ending.partition(b" ")
    return parse(record, Status(status.decode())) if record else None


def _expired(detection: Detection, code: ErrorCode) -> Detection:
    """The expired record, without results."""
    kept = detection.model_dump(include={"id", "ref_id", "image", "view", "created_at"})
    return Detection(
        **kept,
        status=Status.EXPIRED,
        expires_at=detection.expires_at,
        finished_at=detection.finished_at,
        error=detection_error(code),
    )


def member(created_at: datetime, detection_id: str = "") -> str:
    """Member of an index: zero-padded µs since epoch and id, so that strings sort by time.

    Times after the year 2286 count as its end.
    """
    microseconds = min((created_at - _EPOCH) // _MICROSECOND, 10**_TIME_DIGITS - 1)
    return f"{microseconds:0{_TIME_DIGITS}d}{detection_id}"


def id_of(entry: str) -> str:
    """Id of the detection in a member of an index."""
    return entry[_TIME_DIGITS:]


def milliseconds(moment: datetime) -> int:
    """Milliseconds since epoch."""
    return int(moment.timestamp() * 1000)


def model_tag(model: ModelInfo | None) -> str:
    """Name, version and digest of a model as one string; empty for None."""
    return "" if model is None else f"{model.name} {model.version} {model.digest or ''}".rstrip()
