"""Parser for TIFF headers, and for the orientation in EXIF data, which is a small TIFF file."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from pictures.errors import CameraRawError, PictureError, UndecodablePictureError
from pictures.source import Source

MAGIC = (b"MM\0*", b"II*\0", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0")
"""First bytes of files; the third and fourth are known mistakes, the last two are BigTIFF."""
RAW = "camera raw is not supported; convert the file to JPEG, PNG or TIFF"
"""Message of `CameraRawError`."""
UPRIGHT = 1
SIDEWAYS = range(5, 9)
"""Orientations that swap width and height."""

_SUBFILE, _OLD_SUBFILE = 254, 255  # tags; the second is from TIFF 5.0 and before
_WIDTH, _LENGTH, _PHOTOMETRIC, _ORIENTATION = 256, 257, 262, 274
_SUB_DIRECTORIES, _DNG_VERSION = 330, 50706
_PROFILE, _EXIF_DIRECTORY = 34675, 34665
_WANTED = frozenset(
    (
        *(_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH, _PHOTOMETRIC, _ORIENTATION),
        *(_SUB_DIRECTORIES, _DNG_VERSION),
        *(258, 259, 266, 273, 277, 278, 279, 284),  # bits, compression, strips, planes
        *(292, 293, 317, 320, 322, 323, 324, 325),  # fax, predictor, palette, tiles
        *(332, 338, 339, 347, *range(512, 522)),  # inks, alpha, sample format, JPEG
        *(529, 530, 531, 532, _PROFILE),  # YCbCr
    )
)
_BYTES = (1, 7)  # field types of a profile
_NO_PICTURE = 1 | 4  # bits of NewSubfileType: reduced copy of another picture, mask
_OLD_REDUCED = 2
_SENSOR = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_CR2 = b"CR\2\0"  # Canon raw, after the offset of the first directory
_MOST_SUB_DIRECTORIES = 8  # read at most; cameras write up to 4
_SHORT, _LONG = 3, 4
_SIZES = {1: 1, _SHORT: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes per unsigned integer, by field type

Order = Literal["big", "little"]
_EXIF: dict[bytes, tuple[Order, str]] = {
    b"II*\0": ("little", "<HHI4s"),
    b"MM\0*": ("big", ">HHI4s"),
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes in bytes of the parts of a directory, for TIFF or BigTIFF."""

    first: int
    """Position of the first directory's offset."""
    offset: int
    count: int
    entry: int
    value: int
    """Position of the value in an entry."""


_CLASSIC = _Layout(first=4, offset=4, count=2, entry=12, value=8)
_BIG = _Layout(first=8, offset=8, count=8, entry=20, value=12)


@dataclass(frozen=True, slots=True)
class _Field:
    """An entry of a directory."""

    order: Order
    entry: bytes
    """The whole entry, unchanged."""
    kind: int
    count: int
    value: bytes
    """The value, or its offset in the file."""

    @property
    def number(self) -> int | None:
        """The value; None unless it is a single unsigned integer."""
        if self.kind not in _SIZES or self.count != 1:
            return None
        return int.from_bytes(self.value[: _SIZES[self.kind]], self.order)

    def values(self, source: Source, most: int) -> Iterator[int]:
        """Iterate over at most `most` unsigned integers of the value.

        Raises:
            PictureError: If the file is truncated or has too many parts.
        """
        size = _SIZES.get(self.kind)
        if size is None:
            return
        if self.count * size <= len(self.value):
            numbers = self.value
        else:
            at = int.from_bytes(self.value, self.order)
            numbers = source.read(at, size * min(self.count, most))
        for at in range(0, size * min(self.count, most), size):
            yield int.from_bytes(numbers[at : at + size], self.order)


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory, with only the fields that matter for decoding."""

    at: int
    fields: Mapping[int, _Field]
    following: int
    """Position of the next directory's offset."""

    def number(self, tag: int) -> int | None:
        """The value of a tag; None unless it is a single unsigned integer."""
        return self.fields[tag].number if tag in self.fields else None


def size(source: Source) -> tuple[int, int]:
    """Read width and height of the first picture that is not a thumbnail, upright.

    Raises:
        CameraRawError: If the file is camera raw.
        PictureError: If the header is invalid.
    """
    found = _size(_shown(source))
    if found is None:
        raise UndecodablePictureError("the TIFF has no width or height")
    return found


def _size(directory: _Directory) -> tuple[int, int] | None:
    """Width and height of a picture, upright."""
    width, height = directory.number(_WIDTH), directory.number(_LENGTH)
    if width is None or height is None:
        return None
    turn = directory.fields.get(_ORIENTATION)
    if turn is not None and _needed(_ORIENTATION, turn) and turn.number in SIDEWAYS:
        return height, width
    return width, height


class Page(NamedTuple):
    """A picture that is not a thumbnail."""

    at: int
    """Offset of its directory in the file."""
    size: tuple[int, int] | None
    """Upright width and height, if known."""


def pages(source: Source) -> Iterator[Page]:
    """Iterate over the pictures that are not thumbnails.

    Raises:
        PictureError: At the first directory that is invalid.
    """
    return (Page(one.at, _size(one)) for one in _directories(source) if not _reduced(one))


def pixels_only(data: bytes, directory: int | None = None) -> bytes:
    """Reduce the file to one directory, without metadata.

    Args:
        data: The whole file.
        directory: Offset of the directory; None: the one that is shown.

    Raises:
        CameraRawError: If the file is camera raw.
        PictureError: If the header is invalid.
    """
    source = Source(data)
    shown = _shown(source) if directory is None else _directory(source, 0, directory)
    order, layout = _form(source, 0)
    entries = [field.entry for tag, field in shown.fields.items() if _needed(tag, field)]
    reduced = len(entries).to_bytes(layout.count, order) + b"".join(entries)
    reduced += bytes(layout.offset)  # no next directory
    file = bytearray(data)
    file[shown.at : shown.at + len(reduced)] = reduced  # not longer than the old one
    file[layout.first : layout.first + layout.offset] = shown.at.to_bytes(layout.offset, order)
    return bytes(file)


def _needed(tag: int, field: _Field) -> bool:
    if tag == _PROFILE:
        return field.kind in _BYTES
    if tag == _ORIENTATION:
        return field.kind in (_SHORT, _LONG) and field.count == 1
    return tag not in (_SUBFILE, _OLD_SUBFILE, _SUB_DIRECTORIES, _DNG_VERSION)


def _shown(source: Source) -> _Directory:
    """The directory of the first picture that is not a thumbnail."""
    directories = _directories(source)
    first = next(directories, None)
    if first is None:
        raise UndecodablePictureError("the TIFF has no picture")
    if _is_raw(source, first):
        raise CameraRawError(RAW)
    main = (one for one in chain((first,), directories) if not _reduced(one))
    return next(main, first)


def _reduced(directory: _Directory) -> bool:
    kind = directory.number(_SUBFILE) or 0
    return bool(kind & _NO_PICTURE) or directory.number(_OLD_SUBFILE) == _OLD_REDUCED


def _is_raw(source: Source, first: _Directory) -> bool:
    """Whether a file is camera raw, by its first directory and its subdirectories.

    It is if one of them contains sensor data, if there is a DNG tag, or if the first directory is
    a thumbnail with subdirectories.
    """
    if source.read(8, 4) == _CR2 or _DNG_VERSION in first.fields:
        return True
    below = first.fields.get(_SUB_DIRECTORIES)
    if below is None:
        return first.number(_PHOTOMETRIC) in _SENSOR
    if _reduced(first) or first.number(_PHOTOMETRIC) in _SENSOR:
        return True
    spare = Source(source.data)  # errors in subdirectories do not matter for the picture
    with suppress(PictureError):
        for at in below.values(spare, _MOST_SUB_DIRECTORIES):
            with suppress(PictureError):
                if _directory(spare, 0, at).number(_PHOTOMETRIC) in _SENSOR:
                    return True
    return False


def orientation(source: Source, start: int, end: int) -> int:
    """Read the orientation, 1 to 8, from the EXIF data at `start` to `end` of a file.

    As in browsers, the first valid single SHORT counts, in the first directory or its EXIF
    subdirectory; entries past `end` are ignored. Invalid data yields 1 (upright).
    """
    try:
        order, entry = _EXIF[source.read(start, 4)]
        first = source.number(start + 4, 4, order)
    except (KeyError, PictureError):
        return UPRIGHT
    return _turn(source, (start, end), first, order, entry) or UPRIGHT


def _turn(
    source: Source, exif: tuple[int, int], first: int, order: Order, entry: str, below: bool = True
) -> int | None:
    """The orientation in a directory of EXIF data or in its EXIF subdirectory."""
    start, end = exif
    at = start + first + 2
    try:
        count = min(source.number(at - 2, 2, order), max(end - at, 0) // struct.calcsize(entry))
        entries = source.read(at, count * struct.calcsize(entry))  # one read for all entries
    except PictureError:
        return None
    for tag, kind, count, value in struct.iter_unpack(entry, entries):
        number = int.from_bytes(value[:2], order)
        if (tag, kind, count) == (_ORIENTATION, _SHORT, 1) and 1 <= number <= 8:
            return number
        if below and (tag, kind, count) == (_EXIF_DIRECTORY, _LONG, 1):
            below = False  # only one level, to bound the work
            found = _turn(source, exif, int.from_bytes(value, order), order, entry, below=False)
            if found is not None:
                return found
    return None


def _directories(source: Source) -> Iterator[_Directory]:
    order, layout = _form(source, 0)
    at = source.number(layout.first, layout.offset, order)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        directory = _directory(source, 0, at)
        yield directory
        at = source.number(directory.following, layout.offset, order)


def _form(source: Source, start: int) -> tuple[Order, _Layout]:
    magic = source.read(start, 4)
    return "big" if magic[:2] == b"MM" else "little", _BIG if b"+" in magic else _CLASSIC


def _directory(source: Source, start: int, at: int) -> _Directory:
    """Read the directory at offset `at`; the first entry of each tag counts."""
    order, layout = _form(source, start)
    fields: dict[int, _Field] = {}
    entries = at + layout.count
    count = source.number(at, layout.count, order)
    for place in range(entries, entries + layout.entry * count, layout.entry):
        entry = source.read(place, layout.entry)
        tag = int.from_bytes(entry[:2], order)
        if tag in _WANTED and tag not in fields:
            fields[tag] = _Field(
                order=order,
                entry=entry,
                kind=int.from_bytes(entry[2:4], order),
                count=int.from_bytes(entry[4 : layout.value], order),
                value=entry[layout.value :],
            )
    return _Directory(at, fields, entries + layout.entry * count)
