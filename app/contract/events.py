"""Endings of an owner's detections, in a stream of limited length in Redis.

`finish.lua` adds an entry, `delete.lua` removes that of a deleted detection. Entries hold an id and
a status only; the stream expires with the detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from redis import Redis

from app.contract.records import events_key
from app.contract.schemas import Status

START = "0-0"
"""Position before the first entry of a stream."""

POSITION_PATTERN = r"^([0-9]{1,18}-[0-9]{1,18})?$"
"""A position in a stream, see `Ending`; or none."""

_MAX_READ = 100  # entries at once


class Ending(NamedTuple):
    """The end of a detection."""

    position: str
    """Position in the stream; later ones are larger."""
    detection_id: str
    status: Status


def endings_after(redis: Redis, wanted: Sequence[tuple[str, str]]) -> list[list[Ending]]:
    """Read the next endings of owners, in one round trip.

    Args:
        redis: connected client.
        wanted: pairs of owner and position.

    Returns:
        For each pair up to 100 endings after the position, oldest first.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for owner, position in wanted:
            pipeline.xrange(events_key(owner), f"({position}", "+", _MAX_READ)
        found = pipeline.execute()
    return [[_parse(*entry) for entry in entries] for entries in found]


def last_position(redis: Redis, owner: str) -> str:
    """Position of the owner's latest ending."""
    found = cast(list[tuple[bytes, object]], redis.xrevrange(events_key(owner), count=1))
    return found[0][0].decode() if found else START


def _parse(position: bytes, fields: dict[bytes, bytes]) -> Ending:
    return Ending(position.decode(), fields[b"id"].decode(), Status(fields[b"status"].decode()))
