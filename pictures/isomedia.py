"""Headers of the formats that are boxes within boxes (ISO/IEC 14496-12): HEIF and AVIF."""

from collections.abc import Iterator
from dataclasses import dataclass

from pictures.errors import TruncatedPictureError, UndecodablePictureError
from pictures.source import Source

_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_ANY_BRANDS = (b"mif1", b"msf1")  # structure alone; the codec is told by a property
_SEQUENCES = (b"avis", b"msf1")
_HEADER, _LONG_HEADER = 8, 16
_VERSION = 4  # bytes of version and flags with which some boxes begin
_SAMPLE_ENTRY = 78  # bytes of an entry for video before its boxes
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


def read(source: Source) -> tuple[str, int, int]:
    """Format, width and height, upright.

    Raises:
        PictureError: They cannot be read.
    """
    brand = source.read(8, 4)
    if brand in _SEQUENCES:
        track = _first(source, Box(b"", 0, len(source)), b"moov", b"trak")
        if track is not None:
            return ("AVIF", *_track_size(source, track))
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
    size = None
    for index in _uses(source, properties, _primary(source, properties)):
        if not 0 < index <= len(known):
            raise UndecodablePictureError("a property that is not there")
        size = _changed(source, known[index - 1], size, crops=not avif)
    if size is None:
        raise UndecodablePictureError("a picture without a size")
    return ("AVIF" if avif else "HEIF", *size)


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


def _changed(
    source: Source, box: Box, size: tuple[int, int] | None, *, crops: bool
) -> tuple[int, int] | None:
    """The size of a picture after one more of its properties."""
    if box.kind == b"ispe":
        body = source.read(box.start + _VERSION, 8)
        return int.from_bytes(body[:4], "big"), int.from_bytes(body[4:], "big")
    if size is not None and box.kind == b"irot" and source.number(box.start, 1) % 2:
        return size[::-1]
    if size is not None and box.kind == b"clap" and crops:
        body = source.read(box.start, 16)  # two fractions
        numbers = [int.from_bytes(body[at : at + 4], "big") for at in range(0, 16, 4)]
        if not numbers[1] or not numbers[3]:
            raise UndecodablePictureError("a crop by a fraction of nothing")
        return round(numbers[0] / numbers[1]), round(numbers[2] / numbers[3])
    return size


def _track_size(source: Source, track: Box) -> tuple[int, int]:
    """Width and height of the pictures of a sequence."""
    head = _first(source, track, b"tkhd")
    if head is None:
        raise UndecodablePictureError("a track without a header")
    at = head.start + _TRACK_SIZE.get(source.number(head.start, 1), 0)
    width, height = source.number(at, 4) >> 16, source.number(at + 4, 4) >> 16
    description = _first(source, track, b"mdia", b"minf", b"stbl", b"stsd")
    if description is not None:
        entry = _first(source, Box(b"", description.start + 8, description.end), b"av01")
        turn = entry and _first(source, Box(b"", entry.start + _SAMPLE_ENTRY, entry.end), b"irot")
        if turn and source.number(turn.start, 1) % 2:
            return height, width
    return width, height
