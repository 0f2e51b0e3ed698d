"""Reads all sources of provenance in a file except C2PA; a broken source does not affect others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pictures.origin import Says, Source, Statement
from pictures.provenance import embedded, exif, generators, iptc, stealth, xmp
from pictures.provenance.embedded import MAX_PART
from pictures.provenance.statement import MAX_OF_SOURCE, Reading

T = TypeVar("T")

_MOST = 8  # packets of a kind that are read; files have one, rarely two


def read(data: bytes, picture_format: str, *, location: bool) -> Reading:
    """Read the metadata of a picture file, except its C2PA manifest.

    Args:
        data: The whole file.
        picture_format: One of `header.ALLOWED_FORMATS`.
        location: Whether to read GPS data.
    """
    parts = embedded.read(data, picture_format)
    attempts = _Attempts(failed=parts.skipped)
    found: list[Statement] = []
    texts = list(parts.texts)
    packets, datasets = list(parts.xmp), list(parts.iptc)
    for read_exif in attempts.each(parts.exif, lambda one: exif.read(one, location=location)):
        found += read_exif.statements
        texts += read_exif.texts
        packets += filter(None, (read_exif.xmp,))
        datasets += filter(None, (read_exif.iptc,))
    for packet in attempts.each(attempts.small(packets), xmp.read):
        found += filter(None, (packet.statement,))
        texts += packet.texts
    found += filter(None, attempts.each(attempts.small(datasets), iptc.read))
    found += attempts.one(lambda: generators.read(texts)) or []
    if picture_format == "PNG":
        found += attempts.one(lambda: stealth.read(data)) or []
    return Reading(_first_of_each_source(_without_repeats(found)), attempts.failed)


def _without_repeats(found: list[Statement]) -> list[Statement]:
    """Drop repeated statements, and EXIF that only repeats a generator's name."""
    named = {one.by for one in found if one.source is Source.TEXT and one.says is Says.GENERATED}
    return [
        one
        for number, one in enumerate(found)
        if one not in found[:number]
        and not (one.source is Source.EXIF and one.says is None and one.by in named)
    ]


def _first_of_each_source(found: list[Statement]) -> list[Statement]:
    """Limit the statements of each source, so that they leave room for those of the others."""
    counts = Counter[Source]()
    kept = []
    for one in found:
        counts[one.source] += 1
        if counts[one.source] <= MAX_OF_SOURCE:
            kept.append(one)
    return kept


@dataclass
class _Attempts:
    """Calls readers, which hostile files can make raise any exception."""

    failed: bool = False
    """Whether anything was not read."""

    def one(self, read_one: Callable[[], T]) -> T | None:
        """Call a reader; None if it fails."""
        try:
            return read_one()
        except Exception:
            self.failed = True
            return None

    def each(self, parts: list[bytes], read_one: Callable[[bytes], T]) -> list[T]:
        """Read the first parts of a list, except those that fail."""
        self.failed |= len(parts) > _MOST
        found = (self.one(lambda part=part: read_one(part)) for part in parts[:_MOST])  # type: ignore[misc]
        return [one for one in found if one is not None]

    def small(self, parts: list[bytes]) -> list[bytes]:
        """The parts that are not too large; those from EXIF can be."""
        kept = [part for part in parts if len(part) <= MAX_PART]
        self.failed |= len(kept) < len(parts)
        return kept
