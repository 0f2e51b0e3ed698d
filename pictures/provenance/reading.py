"""Reads all sources of provenance in a file except C2PA; a broken source does not affect others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pictures.provenance import embedded, exif, generators, iptc, stealth, xmp
from pictures.provenance.embedded import Embedded
from pictures.provenance.statement import MAX_STATEMENTS, Says, Source, Statement

T = TypeVar("T")

_MOST = 8  # packets of a kind that are read; files have one, rarely two


def read(data: bytes, picture_format: str, *, location: bool) -> list[Statement]:
    """Read the metadata of a picture file, except its C2PA manifest.

    Args:
        data: The whole file.
        picture_format: One of `header.ALLOWED_FORMATS`.
        location: Whether to read GPS data.
    """
    parts = _attempt(lambda: embedded.read(data, picture_format)) or Embedded()
    found: list[Statement] = []
    texts = list(parts.texts)
    packets, datasets = list(parts.xmp), list(parts.iptc)
    for read_exif in _each(parts.exif, lambda one: exif.read(one, location=location)):
        found += read_exif.statements
        texts += read_exif.texts
        packets += filter(None, (read_exif.xmp,))
        datasets += filter(None, (read_exif.iptc,))
    for packet in _each(packets, xmp.read):
        found += filter(None, (packet.statement,))
        texts += packet.texts
    found += filter(None, _each(datasets, iptc.read))
    found += _attempt(lambda: generators.read(texts)) or []
    if picture_format == "PNG":
        found += _attempt(lambda: stealth.read(data)) or []
    return _without_repeats(found)[:MAX_STATEMENTS]


def _without_repeats(found: list[Statement]) -> list[Statement]:
    """Drop repeated statements, and EXIF that only repeats a generator's name."""
    named = {one.by for one in found if one.source is Source.TEXT and one.says is Says.GENERATED}
    return [
        one
        for number, one in enumerate(found)
        if one not in found[:number]
        and not (one.source is Source.EXIF and one.says is None and one.by in named)
    ]


def _each(parts: Iterable[bytes], read_one: Callable[[bytes], T]) -> list[T]:
    found = (_attempt(lambda part=part: read_one(part)) for part in list(parts)[:_MOST])  # type: ignore[misc]
    return [one for one in found if one is not None]


def _attempt(read_one: Callable[[], T]) -> T | None:
    """Call a reader; None if it fails: hostile files can cause any exception."""
    try:
        return read_one()
    except Exception:
        return None
