"""Headers of TIFF files, and the orientation in EXIF data, which is a small TIFF file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pictures.errors import PictureError, UndecodablePictureError
from pictures.source import Source

MAGIC = (b"MM\0*", b"II*\0", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0")
"""How files begin; the third and fourth are wrong and known, the last two are BigTIFF."""
UPRIGHT = 1
SIDEWAYS = range(5, 9)
"""Orientations that swap width and height."""

_WIDTH, _LENGTH, _ORIENTATION = 256, 257, 274  # tags
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # bytes of the types of unsigned numbers
_EXIF_PREFIX = b"Exif\0\0"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Bytes of the parts of a directory, which differ between TIFF and BigTIFF."""

    first: int
    """Where the file says where the directory is."""
    offset: int
    count: int
    entry: int
    value: int
    """Where the value stands in an entry."""


_CLASSIC = _Layout(first=4, offset=4, count=2, entry=12, value=8)
_BIG = _Layout(first=8, offset=8, count=8, entry=20, value=12)


def size(source: Source) -> tuple[int, int]:
    """Width and height of the first picture of a TIFF file, upright.

    Raises:
        PictureError: They cannot be read.
    """
    tags = _numbers(source, 0)
    if _WIDTH not in tags or _LENGTH not in tags:
        raise UndecodablePictureError("a TIFF without width or height")
    width, length = tags[_WIDTH], tags[_LENGTH]
    return (length, width) if tags.get(_ORIENTATION) in SIDEWAYS else (width, length)


def orientation(source: Source, start: int) -> int:
    """The orientation, 1 to 8, in EXIF data that begins somewhere in a file.

    Broken data says nothing: the picture is upright.
    """
    try:
        if source.read(start, len(_EXIF_PREFIX)) == _EXIF_PREFIX:
            start += len(_EXIF_PREFIX)
        if source.read(start, 4) not in MAGIC:
            return UPRIGHT
        found = _numbers(source, start).get(_ORIENTATION, UPRIGHT)
    except PictureError:
        return UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


def _numbers(source: Source, start: int) -> Mapping[int, int]:
    """The tags of the first directory that are wanted here and hold one number."""
    found: dict[int, int] = {}
    for tag, value in _entries(source, start):
        found.setdefault(tag, value)
    return found


def _entries(source: Source, start: int) -> Iterator[tuple[int, int]]:
    magic = source.read(start, 4)
    order: Literal["big", "little"] = "big" if magic[:2] == b"MM" else "little"
    layout = _BIG if b"+" in magic else _CLASSIC
    at = start + source.number(start + layout.first, layout.offset, order)
    count = source.number(at, layout.count, order)
    at += layout.count
    for _ in range(count):
        entry = source.read(at, layout.entry)
        at += layout.entry
        tag = int.from_bytes(entry[:2], order)
        kind = int.from_bytes(entry[2:4], order)
        values = int.from_bytes(entry[4 : layout.value], order)
        if tag in (_WIDTH, _LENGTH, _ORIENTATION) and kind in _SIZES and values == 1:
            yield tag, int.from_bytes(entry[layout.value :][: _SIZES[kind]], order)
