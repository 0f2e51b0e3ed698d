"""Parser for the ISO base media file format (ISO/IEC 14496-12): headers of HEIF and AVIF."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat

from pictures import av1
from pictures.colour_spaces import BT709, SRGB, CodePoints
from pictures.errors import TruncatedPictureError, UndecodablePictureError
from pictures.source import Source

_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_ANY_BRANDS = (b"mif1", b"msf1")  # any codec; properties tell which
_SEQUENCES = (b"avis", b"msf1")
_HEADER, _LONG_HEADER = 8, 16
_VERSION = 4  # bytes of version and flags at the start of a full box
_STREAM_HEAD = 64  # bytes read of an AV1 stream
_SAMPLE_ENTRY = 78  # bytes of a visual sample entry before its boxes
_MAX_CROPS = 8  # clap properties of a picture; MIAF (ISO/IEC 23000-22) allows one
_TRACK_SIZE = {0: 76, 1: 88}  # offset of width and height in tkhd, by version
_TIME_SCALE = {0: 12, 1: 20}  # offset of units per second in mdhd, by version


@dataclass(frozen=True, slots=True)
class Box:
    """A box; its body is at `start` to `end`."""

    kind: bytes
    start: int
    end: int


def is_isomedia(source: Source) -> bool:
    """Whether the brand of a file is one of HEIF or AVIF."""
    head = source.data[:12]
    return head[4:8] == b"ftyp" and head[8:] in (*_AVIF_BRANDS, *_HEIF_BRANDS, *_ANY_BRANDS)


def ends_early(data: bytes) -> bool:
    """Whether the last box extends past the end of the file."""
    source = Source(data)
    try:
        return any(box.end > len(data) for box in boxes(source, 0, len(data)))
    except UndecodablePictureError:
        return False


@dataclass(slots=True)
class Properties:
    """Properties of the picture that is shown: the primary item, or the first of a sequence."""

    format: str
    width: int = 0
    """Pixels, after rotation."""
    height: int = 0
    crop: tuple[int, int] | None = None
    """Size of the visible part of AVIF before rotation, from the upper left; None if all is."""
    quarter_turns: int = 0
    """Anticlockwise; applied before the mirror."""
    mirror: int | None = None
    """0: swap top and bottom, 1: swap left and right."""
    colour: CodePoints | None = None
    crops: int = 0
    """Number of clap properties applied so far."""
    has_nclx: bool = False
    """Whether the container declares a colour space; otherwise AVIF's stream may."""

    @property
    def orientation(self) -> int:
        """Rotation and mirror as EXIF orientation, 1 to 8."""
        return _ORIENTATIONS[self.quarter_turns][0 if self.mirror is None else 1 + self.mirror]

    def apply(self, source: Source, box: Box) -> None:
        """Apply one property; their order matters.

        Raises:
            PictureError: If the property is invalid.
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
            self.crops += 1
            if self.crops > _MAX_CROPS:  # fractions cost a hundred times as much as a read
                raise UndecodablePictureError("the picture has too many clap properties")
            self._crop(*_fractions(source, box))
        elif box.kind == b"colr" and not self.has_nclx and source.read(box.start, 4) == b"nclx":
            body = source.read(box.start + 4, 4)
            self.has_nclx = True
            self.colour = _code_points(*(int.from_bytes(body[at : at + 2]) for at in (0, 2)))

    def _crop(self, width: Fraction, height: Fraction, right: Fraction, below: Fraction) -> None:
        size = round(width), round(height)
        if self.format == "AVIF":  # browsers ignore crops that do not start at the corner
            left, top = right + (self.width - width) / 2, below + (self.height - height) / 2
            whole = width.denominator == height.denominator == 1
            fits = 0 < width <= self.width and 0 < height <= self.height
            if left or top or not whole or not fits:
                return
            self.crop = size
        self.width, self.height = size


# By quarter turns: without mirror, with top and bottom swapped, with left and right swapped.
_ORIENTATIONS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))
_VIDEO_TRANSFERS = (1, 6, 14, 15)


def _code_points(primaries: int, transfer: int) -> CodePoints | None:
    """Map code points as browsers do: unknown values and video transfers become sRGB."""
    if transfer in _VIDEO_TRANSFERS or not CodePoints.known(BT709, transfer):
        transfer = SRGB
    return CodePoints.known(primaries, transfer) or CodePoints.known(BT709, transfer)


def _fractions(source: Source, box: Box) -> list[Fraction]:
    """Width and height of a crop, and the offset of its centre to the right and downwards."""
    body = source.read(box.start, 32)
    numbers = [
        int.from_bytes(body[at : at + 4], "big", signed=at in (16, 24)) for at in range(0, 32, 4)
    ]
    if not all(numbers[1::2]):
        raise UndecodablePictureError("a clap property has a zero denominator")
    return [Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2)]


def read(source: Source) -> Properties:
    """Read format, size, orientation and colour space of the picture that is shown.

    Raises:
        PictureError: If the header is invalid.
    """
    brand = source.read(8, 4)
    if brand in _SEQUENCES:
        track = _first(source, Box(b"", 0, len(source)), b"moov", b"trak")
        if track is not None:
            return _track(source, track)
    meta = _first(source, Box(b"", 0, len(source)), b"meta")
    if meta is None:
        raise UndecodablePictureError("the file has no meta box")
    if meta.end > len(source):
        raise TruncatedPictureError("the file ends too early")
    properties = Box(b"", meta.start + _VERSION, meta.end)
    container = _first(source, properties, b"iprp", b"ipco")
    if container is None:
        raise UndecodablePictureError("the picture has no properties")
    known = list(boxes(source, container.start, container.end))
    avif = brand in _AVIF_BRANDS or (
        brand in _ANY_BRANDS and any(box.kind == b"av1C" for box in known)
    )
    shown = Properties("AVIF" if avif else "HEIF")
    for index in _uses(source, properties, _primary(source, properties)):
        if not 0 < index <= len(known):
            raise UndecodablePictureError("the picture refers to a missing property")
        shown.apply(source, known[index - 1])
    if avif and not shown.has_nclx:
        place = _place(source, properties, _primary(source, properties))
        found = (
            None if place is None else av1.code_points(source.data[place : place + _STREAM_HEAD])
        )
        shown.colour = found and _code_points(*found)
    if not shown.width or not shown.height:
        raise UndecodablePictureError("the picture has no size")
    return shown


def frames(source: Source) -> int:
    """Count the frames of a sequence; 1 for a still.

    Raises:
        PictureError: If the header is invalid.
    """
    sizes = _of_track(source, b"minf", b"stbl", b"stsz")
    if sizes is None:
        return 1
    at = sizes.start + _VERSION
    each, count = source.number(at, 4), source.number(at + 4, 4)
    if not each:  # a table of sizes follows
        count = min(count, (min(sizes.end, len(source)) - at - 8) // 4)
    return max(1, count)


def delays(source: Source) -> Iterator[int]:
    """Iterate over the times for which the frames of a sequence are displayed, ms.

    As in decoders, the last entry of the table counts for all further frames.

    Raises:
        PictureError: If the header is invalid.
    """
    head = _of_track(source, b"mdhd")
    times = _of_track(source, b"minf", b"stbl", b"stts")
    if head is None or times is None:
        return
    left = frames(source)
    scale = source.number(head.start + _TIME_SCALE.get(source.number(head.start, 1), 12), 4)
    entries = source.number(times.start + _VERSION, 4)
    places = range(times.start + _VERSION + 4, times.end, 8)[:entries]
    for at in places:
        delay = 1000 * source.number(at + 4, 4) // max(1, scale)
        count = left if at == places[-1] else min(left, source.number(at, 4))
        yield from repeat(delay, count)
        left -= count


def _of_track(source: Source, *path: bytes) -> Box | None:
    """A box of the first track's media; None for a still."""
    if source.read(8, 4) not in _SEQUENCES:
        return None
    return _first(source, Box(b"", 0, len(source)), b"moov", b"trak", b"mdia", *path)


def boxes(source: Source, start: int, end: int) -> Iterator[Box]:
    """Iterate over the boxes from `start` to `end`; stops at an invalid box length.

    The last box may extend past `end`.

    Raises:
        PictureError: If the file is truncated or has too many parts.
    """
    while start + _HEADER <= min(end, len(source)):
        head = source.read(start, _HEADER)
        length, body = int.from_bytes(head[:4], "big"), start + _HEADER
        if length == 0:  # extends to the end
            length = end - start
        elif length == 1:  # the length follows in 64 bits
            length, body = source.number(body, 8), start + _LONG_HEADER
        if length < body - start:
            return
        yield Box(head[4:], body, start + length)
        start += length


def _first(source: Source, within: Box, *path: bytes) -> Box | None:
    """Find the first box at a path of box types; None if there is none."""
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
    """ID of the primary item."""
    box = _first(source, meta, b"pitm")
    if box is None:
        raise UndecodablePictureError("the file has no primary item")
    return source.number(box.start + _VERSION, 4 if source.number(box.start, 1) else 2)


def _place(source: Source, meta: Box, item: int) -> int | None:
    """Offset of an item's data in the file; None if it is not stored at a plain file offset."""
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
    """Indices, from 1, of an item's properties, in order."""
    properties = _first(source, meta, b"iprp")
    for box in boxes(source, properties.start, properties.end) if properties else ():
        if box.kind != b"ipma":
            continue
        head = source.read(box.start, 8)  # version, flags, number of items
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


def _track(source: Source, track: Box) -> Properties:
    """Properties of a track of pictures."""
    head = _first(source, track, b"tkhd")
    if head is None:
        raise UndecodablePictureError("the track has no header")
    at = head.start + _TRACK_SIZE.get(source.number(head.start, 1), 0)
    shown = Properties("AVIF", source.number(at, 4) >> 16, source.number(at + 4, 4) >> 16)
    description = _first(source, track, b"mdia", b"minf", b"stbl", b"stsd")
    if description is not None:
        entry = _first(source, Box(b"", description.start + 8, description.end), b"av01")
        for box in boxes(source, entry.start + _SAMPLE_ENTRY, entry.end) if entry else ():
            if box.kind != b"ispe":
                shown.apply(source, box)
    return shown
