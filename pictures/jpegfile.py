"""Parser for JPEG files up to the first scan."""

from collections.abc import Iterator
from typing import NamedTuple

from pictures.errors import UndecodablePictureError
from pictures.source import Source

START, SCAN, END = b"\xff\xd8", 0xDA, 0xD9
"""First bytes of a file; markers that end its head: start of scan, end of image."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers; their segments contain the size."""
APP1 = 0xE1

_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # markers without a segment
_COMMENT = 0xFE
_METADATA = frozenset({*range(0xE0, 0xF0), _COMMENT})
_APP2, _ICC = 0xE2, b"ICC_PROFILE\0"  # followed by number (from 1) and count of parts
# Segments that define the colour transform: prefix and minimum size.
_TRANSFORMS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}


class Segment(NamedTuple):
    """A segment from its marker at `start` to `end`; its content begins at `body`."""

    marker: int
    start: int
    body: int
    end: int


def segments(source: Source) -> Iterator[Segment]:
    """Iterate over the segments up to and including the first scan or the end of the image.

    Raises:
        PictureError: If the file is truncated or has too many parts.
    """
    at = len(START)
    while True:
        head = source.read(at, 2)
        marker = head[1]
        if head[0] != 0xFF:
            at = source.find(b"\xff", at)
        elif marker == 0xFF:  # fill byte
            at += 1
        elif marker in (SCAN, END):
            yield Segment(marker, at, at + 2, at + 2)
            return
        elif marker in _BARE:
            at += 2
        else:
            end = at + 2 + source.number(at + 2, 2)
            yield Segment(marker, at, at + 4, end)
            at = end


def pixels_only(data: bytes) -> tuple[bytes, bytes | None]:
    """Return the file without metadata, and its ICC profile.

    Raises:
        PictureError: If the file has no scan or is truncated.
    """
    source = Source(data)
    kept: list[bytes | memoryview] = [START]
    profile: list[bytes] = []
    for segment in segments(source):
        if segment.marker == SCAN:
            kept.append(memoryview(data)[segment.start :])
            return b"".join(kept), _profile(profile)
        if segment.marker == _APP2 and data.startswith(_ICC, segment.body):
            profile.append(data[segment.body + len(_ICC) : segment.end])
        if segment.marker not in _METADATA or _defines_transform(data, segment):
            kept.append(data[segment.start : segment.end])
    raise UndecodablePictureError("the JPEG has no scan")


def _defines_transform(data: bytes, segment: Segment) -> bool:
    start, size = _TRANSFORMS.get(segment.marker, (b"", 0))
    return (
        bool(size) and data.startswith(start, segment.body) and (segment.end - segment.body >= size)
    )


def _profile(parts: list[bytes]) -> bytes | None:
    """Join the first complete profile, as browsers do; None if a part has a wrong number."""
    parts, numbered = [part for part in parts if len(part) > 2], dict[int, bytes]()
    for part in parts:
        if not 0 < part[0] <= part[1] == parts[0][1] or part[0] in numbered:
            return None
        numbered[part[0]] = part[2:]
        if len(numbered) == part[1]:
            return b"".join(numbered[number] for number in sorted(numbered))
    return None
