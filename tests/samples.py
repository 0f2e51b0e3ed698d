"""Generated picture files of every supported format; HEIC files are stored ones (no encoder)."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

HEIC = Path(__file__).parent / "heic"
HEIC_SIZE = (64, 48)
QUARTERS = ((220, 40, 40), (40, 200, 60), (50, 60, 210), (240, 240, 240))
"""Colours of the quarters of the sample pictures: the upper two, then the lower two."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """A picture of four colours, which shows any rotation and any swap of channels."""
    pixels = np.empty((height, width, 3), np.uint8)
    for at, colour in enumerate(QUARTERS):
        rows = slice(height // 2, None) if at >= 2 else slice(height // 2)
        columns = slice(width // 2, None) if at % 2 else slice(width // 2)
        pixels[rows, columns] = colour
    return Image.fromarray(pixels)


def corners(pixels: NDArray[np.uint8]) -> NDArray[np.int_]:
    """Colours (4, 3) at the centres of the quarters of a picture (H, W, 3)."""
    height, width = pixels.shape[:2]
    found = [pixels[y, x] for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return np.array(found, int)


def encoded(picture: Image.Image, image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, image_format, **options)
    return stream.getvalue()


def heic(name: str = "rgb") -> bytes:
    return (HEIC / f"{name}.heic").read_bytes()


def srgb_profile() -> bytes:
    """An ICC profile without its date, so that it is always the same."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def every_format() -> dict[str, bytes]:
    """One small file of each supported format by Pillow's name, with EXIF and an ICC profile."""
    picture = quarters()
    profile = srgb_profile()
    exif = Image.Exif()
    exif[0x010F] = "camera"
    more = {"exif": exif, "icc_profile": profile}
    return {
        "JPEG": encoded(picture, "JPEG", quality=90, **more),
        "PNG": encoded(picture, "PNG", **more),
        "WEBP": encoded(picture, "WEBP", quality=90, **more),
        "GIF": encoded(picture, "GIF"),
        "BMP": encoded(picture, "BMP"),
        "TIFF": encoded(picture, "TIFF", compression="tiff_lzw", **more),
        "AVIF": encoded(picture, "AVIF", **more),
        "HEIF": heic("turned"),
    }


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], bits: int = 8, kind: int = 2
) -> bytes:
    """A PNG with these chunks after its header; `kind` is its colour type."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )


def tiff(*entries: tuple[int, int, int], body: bytes = b"") -> bytes:
    """A little-endian TIFF with tags (number, type, value) of one value each; see `tiff_body`."""
    directory = b"".join(struct.pack("<HHII", n, kind, 1, value) for n, kind, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + body


def tiff_body(entries: int) -> int:
    """Offset of the body of a `tiff` with this number of entries."""
    return 8 + 2 + 12 * entries + 4


def box(kind: bytes, *parts: bytes) -> bytes:
    """An ISO media box."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def heif_grid(
    rows: int, columns: int, width: int, height: int, kind: bytes = b"grid", source: bytes = b""
) -> bytes:
    """HEIF whose picture is derived from rows × columns tiles, each the sample picture (64 × 64).

    An item may not be referenced twice, but all items share the same data.
    """
    source = source or heic()
    hvcc, size = (_box_of(source, name) for name in (b"hvcC", b"ispe"))
    coded = source[source.index(b"mdat") + 4 :]
    derived = bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", width, height)
    tiles = range(2, 2 + rows * columns)
    large = box(b"ispe", bytes(4), struct.pack(">II", width, height))
    uses = [b"\0\1\1\3", *(struct.pack(">HBBB", tile, 2, 0x81, 2) for tile in tiles)]
    items = [_item(1, kind), *(_item(tile, b"hvc1") for tile in tiles)]
    references = struct.pack(f">HH{len(tiles)}H", 1, len(tiles), *tiles)
    count = struct.pack(">H", len(items))
    parts = (
        box(b"hdlr", bytes(8), b"pict", bytes(13)),
        box(b"pitm", bytes(4), b"\0\1"),
        box(b"iinf", bytes(4), count, *items),
        box(b"iref", bytes(4), box(b"dimg", references)),
        box(
            b"iprp",
            box(b"ipco", hvcc, size, large),
            box(b"ipma", bytes(4), struct.pack(">I", len(items)), *uses),
        ),
    )
    ftyp = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    head = 8 + 4 + 2 + len(count)  # iloc box; each location has 14 bytes
    start = len(ftyp) + 8 + 4 + sum(map(len, parts)) + head + 14 * len(items) + 8
    extents = [(1, start, len(derived)), *((t, start + len(derived), len(coded)) for t in tiles)]
    locations = box(
        b"iloc",
        bytes(4),
        b"\x44\0",
        count,
        *(struct.pack(">HHHII", item, 0, 1, at, length) for item, at, length in extents),
    )
    return ftyp + box(b"meta", bytes(4), *parts, locations) + box(b"mdat", derived, coded)


def _box_of(data: bytes, kind: bytes) -> bytes:
    at = data.index(kind) - 4
    return data[at : at + int.from_bytes(data[at : at + 4], "big")]


def _item(number: int, kind: bytes) -> bytes:
    return box(b"infe", b"\2\0\0\0", struct.pack(">HH", number, 0), kind, b"\0")
