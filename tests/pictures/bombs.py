"""Decompression bombs and other expensive files, in every format."""

import struct
import zlib
from collections.abc import Callable
from functools import cache

from isal import isal_zlib
from PIL import Image

from tests.samples import box, encoded, every_format, heic, heif_grid, png, tiff, tiff_body

MIB = 2**20
PIXELS = (b"IDAT", zlib.compress(bytes(64 * (3 * 64 + 1))))
EXIF = b"Exif\0\0II*\0"


@cache
def _zeros() -> bytes:
    """300 MiB of zeros, compressed to 0.3 MB; zlib would take seconds."""
    return isal_zlib.compress(bytes(300 * MIB), 2)


def _jpeg(*, scans: int = 0, comments: int = 0, filling: int = 0, exif: int = 0) -> bytes:
    data = encoded(Image.new("L", (1000, 1000), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    segment = EXIF + b"\x08\0\0\0" + bytes(65_000)
    head = b"\xff\xfe\0\2" * comments + b"\xff" * filling
    head += (b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment) * exif
    return data[:2] + head + data[2:-2] + data[last:-2] * scans + b"\xff\xd9"


def _jpeg_exif(entries: bytes) -> bytes:
    """A JPEG with an EXIF directory of these entries."""
    segment = EXIF + b"\x08\0\0\0" + entries
    data = encoded(Image.new("L", (64, 64)), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def _gif(width: int, height: int, blocks: int = 0) -> bytes:
    comment = b"!\xfe" + b"\1a" * blocks + b"\0"
    frame = b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\2\2D\1\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + comment + frame + b";"


def _tiff(*more: tuple[int, int, int]) -> bytes:
    entries = [(256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries += more
    at = tiff_body(len(entries) + 2)
    place = (273, 279) if more[0][0] == 278 else (324, 325)
    entries += [(place[0], 4, at), (place[1], 4, len(_zeros()))]
    return tiff(*sorted(entries), body=_zeros())


def _tiff_values(tag: int, kind: int, count: int, size: int) -> bytes:
    """A TIFF of 16 × 16 pixels with millions of values in one tag."""
    tags = {256: (3, 16), 257: (3, 16), 258: (3, 8), 259: (3, 1), 262: (3, 1)}
    tags |= {273: (4, 8), 277: (3, 1), 278: (3, 16), 279: (4, 256)}
    entries = {
        number: struct.pack("<HHII", number, *((k, 1, v))) for number, (k, v) in tags.items()
    }
    head = 10 + 12 * len(set(entries) | {tag}) + 4
    entries[tag] = struct.pack("<HHII", tag, kind, count, head)
    directory = b"".join(entries[number] for number in sorted(entries))
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(entries))
        + directory
        + bytes(4)
        + struct.pack("<I", 8) * (count * size // 4)
    )


def _thumbnails() -> bytes:
    """A TIFF with as many thumbnails as fit and no picture."""
    size = 2 + 3 * 12 + 4
    entries = struct.pack("<HHIIHHIIHHII", 254, 4, 1, 1, 256, 4, 1, 64, 257, 4, 1, 64)
    directories = (
        b"\3\0" + entries + struct.pack("<I", 8 + size * number) for number in range(1, MIB)
    )
    return b"II*\0\x08\0\0\0" + b"".join(directories)


def _apng(*behind: tuple[bytes, bytes]) -> bytes:
    """A PNG whose animation, if any, does not show its default image."""
    return png(64, 64, (b"acTL", b"\0\0\0\1" + bytes(4)), PIXELS, *behind)


def _frame(side: int) -> tuple[bytes, bytes]:
    return b"fcTL", struct.pack(">5I2H2B", 0, side, side, 0, 0, 1, 10, 0, 0)


def _overlapping_tags() -> bytes:
    directory = b"".join(
        struct.pack("<HHII", number, 1, 5 * MIB, 8) for number in range(40_000, 42_000)
    )
    entries = struct.pack("<HHII", 256, 4, 1, 64) + struct.pack("<HHII", 257, 4, 1, 64)
    head = b"II*\0" + struct.pack("<IH", 8, 2002)
    return head + entries + directory + bytes(4) + bytes(6 * MIB)


def _big_tiff() -> bytes:
    """A BigTIFF that declares 2**63 tags."""
    return (
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63) + struct.pack("<HHQQ", 1, 3, 1, 1) * MIB
    )


def _webp_canvas() -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + b"\xff\x3f\0" * 2 + bytes(12)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunks() -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\x3f\0\0" * 2 + b"none\0\0\0\0" * MIB
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bmp(side: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    pixels = b"\0\2\0\0" * 1_000_000  # RLE deltas without pixels
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + head + bytes(1024) + pixels


def _with_size(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def _heif(*parts: bytes) -> bytes:
    return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + box(b"meta", bytes(4), *parts)


def _heif_names() -> bytes:
    """An item whose name repeats the start of an item box."""
    entry = b"\x7f" * 4 + b"infe" + b"\2\0\0\0" + bytes(4) + b"hvc1"  # a box of 2 GB
    item = box(b"infe", b"\2\0\0\0", struct.pack(">HH", 1, 0), b"hvc1", entry * 49_000)
    return _heif(box(b"pitm", bytes(4), b"\0\1"), box(b"iinf", bytes(4), b"\0\1", item))


def _heif_associations(count: int) -> bytes:
    """Property associations that declare `count` items."""
    size = box(b"ispe", bytes(4), struct.pack(">II", 64, 64))
    uses = b"\0\2\1\1" * MIB
    return _heif(
        box(b"pitm", bytes(4), b"\0\1"),
        box(b"iprp", box(b"ipco", size), box(b"ipma", bytes(4), struct.pack(">I", count), uses)),
    )


def _avif_crops() -> bytes:
    """A sequence whose only picture has thousands of crops by large fractions."""
    parts = struct.pack(">4I", 2**32 - 5, 2**32 - 17, 2**32 - 11, 2**32 - 19)
    parts += struct.pack(">4I", 2**31 - 19, 2**32 - 89, 2**31 - 31, 2**32 - 93)
    crop = box(b"clap", parts)
    entry = box(b"av01", bytes(78), crop * 9900)
    table = box(b"minf", box(b"stbl", box(b"stsd", bytes(8), entry)))
    size = box(b"tkhd", bytes(76), struct.pack(">II", 64 << 16, 64 << 16))
    track = box(b"trak", size, box(b"mdia", table))
    return box(b"ftyp", b"avis", bytes(4), b"avis") + box(b"moov", track)


def _heif_invalid_name() -> bytes:
    data = heic()
    at = data.index(b"infe") + 16
    return data[:at] + b"\xff" + data[at + 1 :]


BOMBS: dict[str, Callable[[], bytes]] = {
    "png text": lambda: png(64, 64, (b"zTXt", b"a\0\0" + _zeros()), PIXELS),
    "png profile": lambda: png(64, 64, (b"iCCP", b"a\0\0" + _zeros()), PIXELS),
    "png pixels": lambda: png(64, 64, (b"IDAT", _zeros())),
    "png chunks": lambda: png(64, 64, *[(b"tEXt", b"a\0b")] * 250_000, PIXELS),
    "png exif": lambda: png(64, 64, *[(b"eXIf", EXIF[6:] + bytes(7 * MIB))] * 6, PIXELS),
    "png international text": lambda: png(64, 64, (b"iTXt", b"a\0\1\0\0\0" + _zeros()), PIXELS),
    "png text after the pixels": lambda: png(64, 64, PIXELS, (b"zTXt", b"a\0\0" + _zeros())),
    "png chunks before a frame": lambda: _apng(*[(b"tEXt", b"a\0b")] * 500_000),
    "png pieces of a frame": lambda: _apng(_frame(64), *[(b"fdAT", bytes(4))] * 500_000),
    "png pixels of a frame": lambda: _apng(_frame(1), (b"fdAT", bytes(4) + _zeros())),
    "png pieces": lambda: png(64, 64, *[(b"IDAT", b"")] * 500_000),
    "png size": lambda: png(2**30, 2**30, PIXELS),
    "png line": lambda: png(1, 60_000_000, (b"IDAT", _zeros())),
    "jpeg comments": lambda: _jpeg(comments=500_000),
    "jpeg filling": lambda: _jpeg(filling=2_000_000),
    "jpeg scans": lambda: _jpeg(scans=20_000),
    "jpeg exif": lambda: _jpeg(exif=700),
    "jpeg directory": lambda: _jpeg_exif(b"\xff\xff" + struct.pack("<HHII", 1, 3, 1, 1) * 5000),
    "gif canvas": lambda: _gif(65_535, 65_535),
    "gif comment": lambda: _gif(64, 64, blocks=2_000_000),
    "tiff strip": lambda: _tiff((278, 4, 2**31 - 1)),
    "tiff tile": lambda: _tiff((322, 4, 40_000), (323, 4, 40_000)),
    "tiff thumbnails": _thumbnails,
    "tiff tags": _overlapping_tags,
    "tiff offsets": lambda: _tiff_values(273, 4, 12_000_000, 4),
    "tiff resolution": lambda: _tiff_values(282, 5, 6_000_000, 8),
    "tiff bits": lambda: _tiff_values(258, 3, 24_000_000, 2),
    "tiff counts": lambda: _tiff_values(279, 16, 6_000_000, 8),
    "tiff entries": _big_tiff,
    "bmp runs": lambda: _bmp(1900),
    "bmp size": lambda: _bmp(30_000),
    "webp canvas": _webp_canvas,
    "webp chunks": _webp_chunks,
    "avif size": lambda: _with_size(every_format()["AVIF"], 16_000, 16_000),
    "avif lie": lambda: _with_size(every_format()["AVIF"], 40, 40),
    "avif boxes": lambda: box(b"ftyp", b"avif", bytes(4), b"avif") + box(b"free") * 6_000_000,
    "avif crops": _avif_crops,
    "heif lie": lambda: _with_size(heic(), 40, 40),
    "heif size": lambda: heif_grid(1, 1, 60_000, 60_000),
    "heif tiles": lambda: heif_grid(10, 10, 64, 64, source=_with_size(heic(), 2000, 2000)),
    "heif stack": lambda: heif_grid(10, 10, 64, 64, b"iovl"),
    "heif names": _heif_names,
    "heif name": _heif_invalid_name,
    "heif associations": lambda: _heif_associations(2**32 - 1),
    "heif boxes": lambda: _heif(box(b"free") * 6_000_000),
    "heif properties": lambda: _heif(
        box(b"pitm", bytes(4), b"\0\1"), box(b"iprp", box(b"ipco", box(b"free") * 6_000_000))
    ),
}
"""Each at most 50 MB."""
