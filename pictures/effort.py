"""What a picture file costs to decode beyond its bytes and its pixels, told from its structure.

A small hostile file can ask for hours or gigabytes: by a million parts, by passes over the same
pixels, by tiles far larger than the picture. No proper file comes near the limits here.
"""

import re
from collections.abc import Iterator
from io import BytesIO

from PIL.TiffImagePlugin import TiffImageFile

_MAX_READS = 200_000  # Pillow reads headers piece by piece, about half a second of them
# Each scan of a progressive JPEG costs a pass over all pixels and needs only a few bytes. Encoders
# write about ten; libtiff too stops at 100.
_MAX_SCANS = 100
_MAX_MARKERS = 10_000
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # no stuffed byte, no restart, no filling
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"
_BARE = (b"\x01", b"\xd8")  # markers without a segment
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
_MAX_TILE = 2**24  # pixels; a tile is decoded whole, however small the picture
_HEIF_SHARE = 8  # all pictures of a HEIF, in allowed pictures: tiles, thumbnails, depth, bursts
_HEIF_DERIVED = (b"iovl", b"iden")  # pictures that stack or turn others: nothing writes them
_ITEM_TYPES = {2: 8, 3: 10}  # where the type lies in an `infe` box, by its version
_BOX_HEADER = 8


class ExcessiveEffortError(Exception):
    """A file would take far more time or memory than a picture may."""


class Reader(BytesIO):
    """A file whose reader must come to an end: no picture is a million tiny parts."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does.

        Raises:
            ExcessiveEffortError: Far more reads than any proper file takes.
        """
        self._reads += 1
        if self._reads > _MAX_READS:
            raise ExcessiveEffortError("more parts than any encoder writes")
        return super().read(size)


def check_jpeg(data: bytes) -> None:
    """Count the scans of a JPEG.

    Raises:
        ExcessiveEffortError: They are too many.
    """
    at = scans = markers = 0
    while found := _MARKER.search(data, at):
        markers += 1
        scans += found[1] == _START_OF_SCAN
        if scans > _MAX_SCANS or markers > _MAX_MARKERS:
            raise ExcessiveEffortError("more scans or segments than any encoder writes")
        if found[1] == _END_OF_IMAGE:
            break
        at = found.end()
        if found[1] not in _BARE:
            at += int.from_bytes(data[at : at + 2], "big")


def check_tiff(image: TiffImageFile) -> None:
    """Measure the tiles of a TIFF that has them.

    Raises:
        ExcessiveEffortError: They are far larger than the picture.
    """
    tile = image.tag_v2.get(_TILE_WIDTH, 1) * image.tag_v2.get(_TILE_LENGTH, 1)
    if tile > max(image.width * image.height, _MAX_TILE):
        raise ExcessiveEffortError("tiles far larger than the picture")


def check_heif_names(data: bytes) -> None:
    """See that the names of a HEIF's items are text; to be called before it is opened.

    The binding to its decoder (pi-heif 1.4) ends the process at others.

    Raises:
        ValueError: They are not.
    """
    meta = b"".join(data[at:end] for kind, at, end in boxes(data) if kind == b"meta")
    for found in re.finditer(b"infe", meta):
        start = found.start() - 4
        length = int.from_bytes(meta[start : start + 4], "big")
        entry = meta[found.end() : start + length]
        if not entry or entry[0] not in _ITEM_TYPES:
            raise ValueError("an item without a type")
        at = _ITEM_TYPES[entry[0]]
        entry[at : at + 4].decode("ascii")
        entry[at + 4 :].decode()


def check_heif(data: bytes, max_pixels: int) -> None:
    """Add up the pictures that a HEIF holds; the one to decode may be made of all the others.

    Raises:
        ExcessiveEffortError: They are too many, or made in a way that can take any time.
    """
    meta = next((data[at + 4 : end] for kind, at, end in boxes(data) if kind == b"meta"), b"")
    if any(kind in meta for kind in _HEIF_DERIVED):
        raise ExcessiveEffortError("pictures stacked of others are not read")
    properties = next((meta[at:end] for kind, at, end in boxes(meta) if kind == b"iprp"), b"")
    parts = {kind: properties[at:end] for kind, at, end in boxes(properties)}
    container = parts.get(b"ipco", b"")
    areas = [
        _area(container[at:end]) if kind == b"ispe" else 0 for kind, at, end in boxes(container)
    ]
    total = sum(areas[index - 1] for index in _uses(parts.get(b"ipma", b"")) if index)
    if total > _HEIF_SHARE * max_pixels:
        raise ExcessiveEffortError(f"{total} pixels in all its parts")


def _area(ispe: bytes) -> int:
    """Pixels by the body of an `ispe` box: version and flags, width, height."""
    return int.from_bytes(ispe[4:8], "big") * int.from_bytes(ispe[8:12], "big")


def _uses(ipma: bytes) -> Iterator[int]:
    """Number of a property, from 1 on, for each time that a picture has it, by a body of `ipma`."""
    if not ipma:
        return
    item_bytes = 4 if ipma[0] else 2  # by version
    index_bytes = 2 if ipma[3] & 1 else 1  # by flags
    at = 8
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        at += item_bytes
        count = ipma[at]
        at += 1
        for _ in range(count):
            marked = int.from_bytes(ipma[at : at + index_bytes], "big")
            yield marked & ~(1 << (8 * index_bytes - 1))  # the top bit: whether it is essential
            at += index_bytes


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the body and announced end of each ISO media box in a row.

    It ends where a box says something impossible; the last one may end beyond the data.
    """
    start = 0
    while start + _BOX_HEADER <= len(data):
        length, body = int.from_bytes(data[start : start + 4], "big"), start + _BOX_HEADER
        if length == 0:  # to the end of the file, however long
            length = len(data) - start
        elif length == 1:  # the length follows in 64 bits
            length = int.from_bytes(data[body : body + 8], "big")
            body += 8
        if length < body - start:
            return
        yield data[start + 4 : start + 8], body, start + length
        start += length
