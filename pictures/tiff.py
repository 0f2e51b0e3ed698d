"""Headers of TIFF files, and the orientation in EXIF data, which is a small TIFF file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pictures.errors import CameraRawError, PictureError, UndecodablePictureError
from pictures.source import Source

MAGIC = (b"MM\0*", b"II*\0", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0")
"""How files begin; the third and fourth are wrong and known, the last two are BigTIFF."""
RAW = "camera raw is not a picture yet; develop it and send that, e.g. as JPEG, PNG or TIFF"
"""What is said of camera raw."""
UPRIGHT = 1
SIDEWAYS = range(5, 9)
"""Orientations that swap width and height."""

_SUBFILE, _WIDTH, _LENGTH, _PHOTOMETRIC, _ORIENTATION = 254, 256, 257, 262, 274  # tags
_SUB_DIRECTORIES, _DNG_VERSION = 330, 50706
_WANTED = frozenset(
    (_SUBFILE, _WIDTH, _LENGTH, _PHOTOMETRIC, _ORIENTATION, _SUB_DIRECTORIES, _DNG_VERSION)
)
_REDUCED = 1  # a bit of the first: a smaller copy of another picture of the file
_SENSOR = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_MOST_SUB_DIRECTORIES = 8  # that are looked at; cameras write up to 4
_SHORT = 3
_SIZES = {1: 1, _SHORT: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of the types of unsigned numbers

Order = Literal["big", "little"]


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


@dataclass(frozen=True, slots=True)
class _Field:
    """An entry of a directory."""

    order: Order
    kind: int
    count: int
    value: bytes
    """What it holds, or where in the file that stands."""

    @property
    def number(self) -> int | None:
        """Its value; None where it is not one unsigned number."""
        if self.kind not in _SIZES or self.count != 1:
            return None
        return int.from_bytes(self.value[: _SIZES[self.kind]], self.order)

    def values(self, source: Source, most: int) -> Iterator[int]:
        """Its unsigned numbers, up to so many.

        Raises:
            PictureError: The file ends before them.
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
class Shown:
    """The picture that counts of a TIFF file: the first that is no thumbnail."""

    width: int
    """Pixels, upright."""
    height: int
    frame: int
    """How many directories come before its own."""


def read(source: Source) -> Shown:
    """Find the picture that counts.

    Raises:
        CameraRawError: The file is camera raw.
        PictureError: It cannot be read.
    """
    directories = _directories(source)
    fields = first = next(directories, {})
    if _is_raw(source, first):
        raise CameraRawError(RAW)
    frame = 0
    while _number(fields, _SUBFILE) & _REDUCED:
        following = next(directories, None)
        if following is None:  # there is nothing but thumbnails
            frame, fields = 0, first
            break
        frame, fields = frame + 1, following
    width, height = (fields[tag].number if tag in fields else None for tag in (_WIDTH, _LENGTH))
    if width is None or height is None:
        raise UndecodablePictureError("a TIFF without width or height")
    if _number(fields, _ORIENTATION) in SIDEWAYS:
        width, height = height, width
    return Shown(width, height, frame)


def _is_raw(source: Source, first: Mapping[int, _Field]) -> bool:
    """Whether a file is camera raw, by its first directory and those below that.

    Somewhere in it is a picture as a sensor gives it, or a tag of DNG, or there is a thumbnail
    first, with the picture below it.
    """
    if source.read(8, 2) == b"CR" or _DNG_VERSION in first:
        return True
    below = first.get(_SUB_DIRECTORIES)
    if below is not None and _number(first, _SUBFILE) & _REDUCED:
        return True
    directories = [first]
    for at in below.values(source, _MOST_SUB_DIRECTORIES) if below is not None else ():
        directories.append(_fields(source, 0, at)[0])
    return any(_number(fields, _PHOTOMETRIC) in _SENSOR for fields in directories)


def orientation(source: Source, start: int) -> int:
    """The orientation, 1 to 8, in EXIF data that begins somewhere in a file.

    As in browsers it is a single number of type SHORT, which EXIF demands, or there is none.
    Broken data says nothing: the picture is upright.
    """
    try:
        if source.read(start, 4) not in MAGIC:
            return UPRIGHT
        order, layout = _form(source, start)
        at = start + source.number(start + layout.first, layout.offset, order)
        field = _fields(source, start, at)[0].get(_ORIENTATION)
    except PictureError:
        return UPRIGHT
    number = field.number if field is not None and field.kind == _SHORT else None
    return number if number is not None and 1 <= number <= 8 else UPRIGHT


def _number(fields: Mapping[int, _Field], tag: int) -> int:
    return fields[tag].number or 0 if tag in fields else 0


def _directories(source: Source) -> Iterator[Mapping[int, _Field]]:
    """The fields of each directory of a file, of those that are wanted here."""
    order, layout = _form(source, 0)
    at = source.number(layout.first, layout.offset, order)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        fields, following = _fields(source, 0, at)
        yield fields
        at = source.number(following, layout.offset, order)


def _form(source: Source, start: int) -> tuple[Order, _Layout]:
    magic = source.read(start, 4)
    return "big" if magic[:2] == b"MM" else "little", _BIG if b"+" in magic else _CLASSIC


def _fields(source: Source, start: int, at: int) -> tuple[Mapping[int, _Field], int]:
    """The first of each wanted tag of a directory, and where the next directory is told."""
    order, layout = _form(source, start)
    found: dict[int, _Field] = {}
    count = source.number(at, layout.count, order)
    at += layout.count
    for _ in range(count):
        entry = source.read(at, layout.entry)
        tag = int.from_bytes(entry[:2], order)
        if tag in _WANTED and tag not in found:
            found[tag] = _Field(
                order=order,
                kind=int.from_bytes(entry[2:4], order),
                count=int.from_bytes(entry[4 : layout.value], order),
                value=entry[layout.value :],
            )
        at += layout.entry
    return found, at
