"""Headers of the formats that are boxes within boxes (ISO/IEC 14496-12): HEIF and AVIF."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from pictures import av1
from pictures.codings import BT709, SRGB, CodePoints
from pictures.errors import TruncatedPictureError, UndecodablePictureError
from pictures.source import Source

_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_ANY_BRANDS = (b"mif1", b"msf1")  # structure alone; the codec is told by a property
_SEQUENCES = (b"avis", b"msf1")
_HEADER, _LONG_HEADER = 8, 16
_VERSION = 4  # bytes of version and flags with which some boxes begin
_STREAM_HEAD = 64  # bytes of an AV1 stream that are looked at
_SAMPLE_ENTRY = 78  # bytes of an entry for video before its boxes
_MOST_CUTS = 8  # of a picture; MIAF (ISO/IEC 23000-22) allows one
_TRACK_SIZE = {0: 76, 1: 88}  # where a track's header has width and height, by its version


@dataclass(frozen=True, slots=True)
class Box:
    """A box: what lies from `start` to `end` is its body."""

    kind: bytes
    start: int
    end: int


def announces(source: Source) -> bool:
    """Whether a file says that it is HEIF or AVIF."""
    head = source.data[:12]
    return head[4:8] == b"ftyp" and head[8:] in (*_AVIF_BRANDS, *_HEIF_BRANDS, *_ANY_BRANDS)


def ends_early(data: bytes) -> bool:
    """Whether a file ends before its last box does."""
    source = Source(data)
    try:
        return any(box.end > len(data) for box in boxes(source, 0, len(data)))
    except UndecodablePictureError:
        return False


@dataclass(slots=True)
class Shown:
    """What a file says of the picture that is shown: the main one, or the first of a sequence."""

    format: str
    width: int = 0
    """Pixels, as turned."""
    height: int = 0
    crop: tuple[int, int] | None = None
    """What is shown of AVIF before it is turned, from the upper left corner on; None: all."""
    quarter_turns: int = 0
    """Anticlockwise; the mirror comes after them."""
    mirror: int | None = None
    """0: top and bottom change places, 1: left and right."""
    colour: CodePoints | None = None
    cuts: int = 0
    """How often it was cut so far."""
    told: bool = False
    """Whether the container says what the colours are; otherwise AVIF's stream may."""

    @property
    def orientation(self) -> int:
        """Turns and mirror as EXIF numbers them, 1 to 8."""
        return _ORIENTATIONS[self.quarter_turns][0 if self.mirror is None else 1 + self.mirror]

    def apply(self, source: Source, box: Box) -> None:
        """Take over one of the properties, which are applied one after the other.

        Raises:
            PictureError: It cannot be read.
        """
        if box.kind == b"ispe":
            body = source.read(box.start + _VERSION, 8)
            self.width, self.height = (int.from_bytes(body[at : at + 4], "big") for at in (0, 4))
        elif box.kind == b"irot":
            self.quarter_turns = source.number(box.start, 1) % 4
            if self.quarter_turns % 2:
                self.width, self.height = self.height, self.width
        elif box.kind == b"imir":
            self.mirror = source.number(box.start, 1) % 2
        elif box.kind == b"clap" and self.width:
            self.cuts += 1
            if self.cuts > _MOST_CUTS:  # fractions cost a hundred times as much as a read
                raise UndecodablePictureError("a picture that is cut over and over")
            self._cut(*_fractions(source, box))
        elif box.kind == b"colr" and not self.told and source.read(box.start, 4) == b"nclx":
            body = source.read(box.start + 4, 4)
            self.told = True
            self.colour = _code_points(*(int.from_bytes(body[at : at + 2]) for at in (0, 2)))

    def _cut(self, width: Fraction, height: Fraction, right: Fraction, below: Fraction) -> None:
        size = round(width), round(height)
        if self.format == "AVIF":  # as browsers: from the corner on, or not at all
            left, top = right + (self.width - width) / 2, below + (self.height - height) / 2
            whole = width.denominator == height.denominator == 1
            fits = 0 < width <= self.width and 0 < height <= self.height
            if left or top or not whole or not fits:
                return
            self.crop = size
        self.width, self.height = size


# By quarter turns: without a mirror, with one of top and bottom, of left and right.
_ORIENTATIONS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))
_VIDEO_TRANSFERS = (1, 6, 14, 15)


def _code_points(primaries: int, transfer: int) -> CodePoints | None:
    """Primaries and transfer as browsers take them: what is not known, and video, is sRGB."""
    if transfer in _VIDEO_TRANSFERS or not CodePoints.known(BT709, transfer):
        transfer = SRGB
    return CodePoints.known(primaries, transfer) or CodePoints.known(BT709, transfer)


def _fractions(source: Source, box: Box) -> list[Fraction]:
    """Width and height of a crop, and how far its centre lies right of, and below, the middle."""
    body = source.read(box.start, 32)
    numbers = [
        int.from_bytes(body[at : at + 4], "big", signed=at in (16, 24)) for at in range(0, 32, 4)
    ]
    if not all(numbers[1::2]):
        raise UndecodablePictureError("a crop by a fraction of nothing")
    return [Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2)]


def read(source: Source) -> Shown:
    """Format, size, turns and colours of the picture that is shown.

    Raises:
        PictureError: They cannot be read.
    """
    brand = source.read(8, 4)
    if brand in _SEQUENCES:
        track = _first(source, Box(b"", 0, len(source)), b"moov", b"trak")
        if track is not None:
            return _track(source, track)
    meta = _first(source, Box(b"", 0, len(source)), b"meta")
    if meta is None:
        raise UndecodablePictureError("no picture in the file")
    if meta.end > len(source):
        raise TruncatedPictureError("the file ends too early")
    properties = Box(b"", meta.start + _VERSION, meta.end)
    container = _first(source, properties, b"iprp", b"ipco")
    if container is None:
        raise UndecodablePictureError("no properties of the picture")
    known = list(boxes(source, container.start, container.end))
    avif = brand in _AVIF_BRANDS or (
        brand in _ANY_BRANDS and any(box.kind == b"av1C" for box in known)
    )
    shown = Shown("AVIF" if avif else "HEIF")
    for index in _uses(source, properties, _primary(source, properties)):
        if not 0 < index <= len(known):
            raise UndecodablePictureError("a property that is not there")
        shown.apply(source, known[index - 1])
    if avif and not shown.told:
        place = _place(source, properties, _primary(source, properties))
        found = (
            None if place is None else av1.code_points(source.data[place : place + _STREAM_HEAD])
        )
        shown.colour = found and _code_points(*found)
    if not shown.width or not shown.height:
        raise UndecodablePictureError("a picture without a size")
    return shown


def frames(source: Source) -> int:
    """Count the frames of a sequence; 1 for a still.

    Raises:
        PictureError: They cannot be read.
    """
    if source.read(8, 4) not in _SEQUENCES:
        return 1
    path = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz")
    sizes = _first(source, Box(b"", 0, len(source)), *path)
    return 1 if sizes is None else max(1, source.number(sizes.start + _VERSION + 4, 4))


def boxes(source: Source, start: int, end: int) -> Iterator[Box]:
    """The boxes in a row.

    It ends where a box says something impossible; the last one may end beyond `end`.

    Raises:
        PictureError: As `Source.read`.
    """
    while start + _HEADER <= min(end, len(source)):
        head = source.read(start, _HEADER)
        length, body = int.from_bytes(head[:4], "big"), start + _HEADER
        if length == 0:  # to the end, wherever that is
            length = end - start
        elif length == 1:  # the length follows in 64 bits
            length, body = source.number(body, 8), start + _LONG_HEADER
        if length < body - start:
            return
        yield Box(head[4:], body, start + length)
        start += length


def _first(source: Source, within: Box, *path: bytes) -> Box | None:
    """The first box of a path of kinds, from box to box."""
    for kind in path:
        found = None
        for found in boxes(source, within.start, within.end):
            if found.kind == kind:
                break
        else:
            if found is not None and found.end > len(source):
                raise TruncatedPictureError("the file ends too early")
            return None
        within = found
    return within


def _primary(source: Source, meta: Box) -> int:
    """Number of the picture that is shown."""
    box = _first(source, meta, b"pitm")
    if box is None:
        raise UndecodablePictureError("no main picture")
    return source.number(box.start + _VERSION, 4 if source.number(box.start, 1) else 2)


def _place(source: Source, meta: Box, item: int) -> int | None:
    """Where the bytes of a picture begin in the file; None where that is told in another way."""
    box = _first(source, meta, b"iloc")
    if box is None:
        return None
    version = source.number(box.start, 1)
    sizes = source.number(box.start + _VERSION, 2)
    offset, length, base = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    at = box.start + _VERSION + 2
    count = source.number(at, wide)
    at += wide
    for _ in range(count):
        number = source.number(at, wide)
        at += wide
        method = source.number(at, 2) & 15 if version else 0
        at += 2 * bool(version) + 2
        start = source.number(at, base)
        extents = source.number(at + base, 2)
        at += base + 2
        if number == item:
            return None if method or not extents else start + source.number(at + index, offset)
        at += extents * (index + offset + length)
    return None


def _uses(source: Source, meta: Box, item: int) -> Iterator[int]:
    """Numbers, from 1 on, of the properties of a picture, in their order."""
    properties = _first(source, meta, b"iprp")
    for box in boxes(source, properties.start, properties.end) if properties else ():
        if box.kind != b"ipma":
            continue
        head = source.read(box.start, 8)  # version, flags, number of pictures
        item_bytes, index_bytes = 4 if head[0] else 2, 2 if head[3] & 1 else 1
        at = box.start + len(head)
        for _ in range(int.from_bytes(head[4:], "big")):
            entry = source.read(at, item_bytes + 1)
            at += len(entry)
            used = entry[-1] * index_bytes
            if int.from_bytes(entry[:-1], "big") == item:
                indices = source.read(at, used)
                for start in range(0, used, index_bytes):
                    marked = int.from_bytes(indices[start : start + index_bytes], "big")
                    yield marked & ~(1 << (8 * index_bytes - 1))  # the top bit: essential
                return
            at += used


def _track(source: Source, track: Box) -> Shown:
    """The pictures of a sequence."""
    head = _first(source, track, b"tkhd")
    if head is None:
        raise UndecodablePictureError("a track without a header")
    at = head.start + _TRACK_SIZE.get(source.number(head.start, 1), 0)
    shown = Shown("AVIF", source.number(at, 4) >> 16, source.number(at + 4, 4) >> 16)
    description = _first(source, track, b"mdia", b"minf", b"stbl", b"stsd")
    if description is not None:
        entry = _first(source, Box(b"", description.start + 8, description.end), b"av01")
        for box in boxes(source, entry.start + _SAMPLE_ENTRY, entry.end) if entry else ():
            if box.kind != b"ispe":
                shown.apply(source, box)
    return shown
