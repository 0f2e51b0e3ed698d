"""What Redis does in one step, in Lua: a detection is accepted, begun, finished or deleted whole.

Keys that a script cannot know beforehand (the caller's idempotency entry, the cache entry) are
kept in the record's hash under their full names, so that key names are made in
`app.contract.records` only.

A detection *holds* the bytes of its picture and of its masks. Detections of one owner may hold the
same bytes, which are counted once and stay as long as one of them does. A holding is written
`<bytes> <key>`.

Until a detection ends, memory is *reserved* for its result (`app.contract.reservation`). A
reservation, `<bytes> <id> <owner>`, is made, counted and released in the same steps as the
detection, so no crash leaves one behind; it lapses by itself when the detection can no longer
have a result.
"""

from __future__ import annotations

from pathlib import Path

from redis.commands.core import Script
from rq.job import Job

from app.contract import records

_LUA = Path(__file__).with_name("lua")


def load(folder: Path, *names: str, **constants: str | int) -> Script:
    """A script of several files, of which the last one does the work.

    Args:
        folder: where the files are.
        *names: of the files, without `.lua`; functions come before those that call them.
        **constants: known to the script by these names.
    """
    given = [f"local {name} = {_literal(value)}\n" for name, value in constants.items()]
    files = [(folder / f"{name}.lua").read_text() for name in names]
    # A client is needed for text alone, to encode it.
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
        RESERVATIONS=records.RESERVATIONS_KEY,
        RESERVED=records.RESERVED_KEY,
        RECORD_BYTES=4096,  # of memory, about, whatever the picture
    )


_SHARES = ("holdings", "reserve", "held", "share")

TAKE = _load(*_SHARES, "take")
ACCEPT = _load(*_SHARES, "hold", "place", "run", "accept")
START = _load("holdings", "reserve", "start")
FINISH = _load("holdings", "hold", "reserve", "place", "finish")
DELETE = _load("holdings", "release", "reserve", "run", "delete")
RESERVED = _load("holdings", "reserve", "reserved")
DETECTIONS = _load("detections")
BACKLOG = _load("backlog")
