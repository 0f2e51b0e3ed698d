"""Lua scripts that accept, start, finish and delete detections atomically.

Keys that a script cannot derive (of the idempotency entry and the cache entry) are stored in the
record's hash, so that only `app.contract.records` builds key names.

A detection *holds* the bytes of its picture and masks. Detections of one owner can hold the same
bytes, which are counted once and kept until the last holder is deleted or expires. A holding has
the form `<bytes> <key>`.

Memory is *reserved* for the result of an unfinished detection (`app.contract.reservation`). A
reservation has the form `<bytes> <id> <owner>` and changes atomically with the detection, so that
a crash leaves none behind. It expires when the detection can no longer have a result.
"""

from __future__ import annotations

from pathlib import Path

from redis.commands.core import Script
from rq.job import Job, JobStatus

from app.contract import records

MAX_EVENTS = 1000
"""Approximate number of endings that are kept for each owner."""

_LUA = Path(__file__).with_name("lua")


def load(folder: Path, *names: str, **constants: str | int) -> Script:
    """Concatenate Lua files to a script.

    Args:
        folder: folder of the files.
        *names: file names without `.lua`: libraries before their users, the main file last.
        **constants: local variables of the script.
    """
    given = [f"local {name} = {_literal(value)}\n" for name, value in constants.items()]
    files = [(folder / f"{name}.lua").read_text() for name in names]
    # redis-py needs a client only to encode text.
    return Script(None, "".join([*given, *files]).encode())  # type: ignore[arg-type]


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


def _load(*names: str) -> Script:
    return load(
        _LUA,
        *names,
        JOB=Job.key_for(""),
        TURNS=records.turns_key(""),
        MASKS=records.masks_key("", "")[:-1],
        WAITING=records.waiting_key(""),
        HOLDINGS=records.holdings_key(""),
        HELD_BYTES=records.held_bytes_key(""),
        EVENTS=records.events_key(""),
        MAX_EVENTS=MAX_EVENTS,
        RESERVATIONS=records.RESERVATIONS_KEY,
        RESERVED=records.RESERVED_KEY,
        RECORD_BYTES=4096,  # approximate memory of a record
        QUEUED=JobStatus.QUEUED.value,
    )


_SHARES = ("holdings", "reserve", "held", "share")

TAKE = _load(*_SHARES, "take")
ACCEPT = _load(*_SHARES, "hold", "place", "run", "accept")
START = _load("holdings", "reserve", "start")
FINISH = _load("holdings", "hold", "reserve", "place", "finish")
DELETE = _load("holdings", "release", "reserve", "run", "delete")
RESERVED = _load("holdings", "reserve", "reserved")
DETECTIONS = _load("detections")
PLACES = _load("places")
BACKLOG = _load("backlog")
