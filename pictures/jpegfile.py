"""JPEG files, read segment by segment up to the first scan: what decides their pixels."""

from collections.abc import Iterator
from typing import NamedTuple

from pictures.errors import UndecodablePictureError
from pictures.source import Source

START, SCAN, END = b"\xff\xd8", 0xDA, 0xD9
"""How files begin; markers of what ends their head: the first scan, or the picture."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frames, which have the size."""
APP1 = 0xE1

_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # markers without a segment
_COMMENT = 0xFE
_METADATA = frozenset({*range(0xE0, 0xF0), _COMMENT})
_APP2, _ICC = 0xE2, b"ICC_PROFILE\0"  # then which part it is, from 1 on, and of how many
# Those that tell a decoder what its samples are: how they begin, and bytes at least.
_TRANSFORMS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}


class Segment(NamedTuple):
    """From its marker at `start` to `end`; what it holds begins at `body`."""

    marker: int
    start: int
    body: int
    end: int


def segments(source: Source) -> Iterator[Segment]:
    """The segments of a file up to that of the first scan, or the end of the picture.

    Raises:
        PictureError: As `Source.read`.
    """
    at = len(START)
    while True:
        head = source.read(at, 2)
        marker = head[1]
        if head[0] != 0xFF:
            at = source.find(b"\xff", at)
        elif marker == 0xFF:  # filling
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
    """The file without its metadata, and its ICC profile.

    Raises:
        PictureError: It cannot be read.
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
        if segment.marker not in _METADATA or _tells_samples(data, segment):
            kept.append(data[segment.start : segment.end])
    raise UndecodablePictureError("a JPEG without a scan")


def _tells_samples(data: bytes, segment: Segment) -> bool:
    start, size = _TRANSFORMS.get(segment.marker, (b"", 0))
    return (
        bool(size) and data.startswith(start, segment.body) and (segment.end - segment.body >= size)
    )


def _profile(parts: list[bytes]) -> bytes | None:
    """The first whole profile that the parts give, as in browsers; None where one is wrong."""
    parts, numbered = [part for part in parts if len(part) > 2], dict[int, bytes]()
    for part in parts:
        if not 0 < part[0] <= part[1] == parts[0][1] or part[0] in numbered:
            return None
        numbered[part[0]] = part[2:]
        if len(numbered) == part[1]:
            return b"".join(numbered[number] for number in sorted(numbered))
    return None
