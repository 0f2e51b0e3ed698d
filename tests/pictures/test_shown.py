"""Which picture of a file is decoded, where browsers give no reference (TIFF, HEIC, damage)."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from pictures.decoding import decode
from pictures.errors import (
    CameraRawError,
    PictureError,
    TruncatedPictureError,
    UndecodablePictureError,
)
from pictures.header import read_header
from tests import samples
from tests.browser.builders import animation, frame, other, part, sixteen, still
from tests.samples import QUARTERS, corners, encoded, heic, png, quarters

LIMIT = 1_000_000

Entry = tuple[int, int, tuple[int, ...]]


def directory(order: str, at: int, entries: list[Entry], following: int = 0) -> bytes:
    """A TIFF directory, followed by the values that do not fit into its entries."""
    codes = {1: "B", 3: "H", 4: "I"}
    table, rest = b"", b""
    behind = at + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries):
        content = struct.pack(f"{order}{len(values)}{codes[kind]}", *values)
        table += struct.pack(order + "HHI", tag, kind, len(values))
        if len(content) <= 4:
            table += content.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", behind + len(rest))
            rest += content.ljust(len(content) + len(content) % 2, b"\0")
    return (
        struct.pack(order + "H", len(entries)) + table + struct.pack(order + "I", following) + rest
    )


def picture_entries(width: int, height: int, pixels: int, photometric: int = 2) -> list[Entry]:
    samples_each = 3 if photometric == 2 else 1
    return [
        (256, 4, (width,)),
        (257, 4, (height,)),
        (258, 3, (8,) * samples_each),
        (259, 3, (1,)),
        (262, 3, (photometric,)),
        (273, 4, (pixels,)),
        (277, 3, (samples_each,)),
        (278, 4, (height,)),
        (279, 4, (width * height * samples_each,)),
    ]


def pages(
    order: str, first: list[Entry], *more: list[Entry], below: bool = False, head: bytes = b""
) -> bytes:
    """A TIFF with a small plain picture, then larger ones as next pages or as subdirectories."""
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 2000)
    small = bytes(np.full((6, 8, 3), 99, np.uint8))
    data = (magic + head).ljust(100, b"\0") + small
    places = [4000 + 1000 * number for number in range(len(more))]
    entries = picture_entries(8, 6, 100) + first
    if below:
        entries.append((330, 4, tuple(places)))
    data = data.ljust(2000, b"\0")
    data += directory(order, 2000, entries, 0 if below or not more else places[0])
    for number, (place, added) in enumerate(zip(places, more, strict=True)):
        kind = 32803 if (262, 3, (32803,)) in added else 2
        base = picture_entries(64, 48, 20_000, kind)
        following = 0 if below or number + 1 == len(more) else places[number + 1]
        data = data.ljust(place, b"\0")
        data += directory(
            order, place, base + [entry for entry in added if entry[0] != 262], following
        )
    return data.ljust(20_000, b"\0") + bytes(np.asarray(quarters()))


THUMBNAIL: Entry = (254, 4, (1,))
MAKE: Entry = (271, 1, tuple(b"NIKON\0"))
SENSOR: Entry = (262, 3, (32803,))
RAW = {
    "dng": pages("<", [THUMBNAIL, (50706, 1, (1, 4, 0, 0))], [SENSOR], below=True),
    "dng without a thumbnail": pages("<", [(50706, 1, (1, 4, 0, 0))]),
    "nef": pages(">", [THUMBNAIL, MAKE], [THUMBNAIL], [SENSOR], below=True),
    "arw": pages("<", [THUMBNAIL, MAKE], [SENSOR], below=True),
    "subdirectories, one with sensor data": pages("<", [MAKE], [], [SENSOR], below=True),
    "cr2": pages("<", [MAKE], [], head=b"CR\2\0"),
    "orf": b"IIRO" + bytes(60),
    "rw2": b"IIU\0" + bytes(60),
    "raf": b"FUJIFILMCCD-RAW 0201FF389501" + bytes(60),
    "cr3": samples.box(b"ftyp", b"crx ", bytes(4), b"crx isom") + bytes(60),
    "crw": b"II\x1a\0\0\0HEAPCCDR" + bytes(60),
    "x3f": b"FOVb" + bytes(60),
    "mrw": b"\0MRM" + bytes(60),
}


@pytest.mark.parametrize("name", RAW)
def test_camera_raw_is_refused(name: str) -> None:
    for function in (read_header, decode):
        with pytest.raises(CameraRawError, match="camera raw"):
            function(RAW[name], max_pixels=LIMIT)


@pytest.mark.parametrize("order", "<>")
def test_thumbnails_before_the_picture_are_skipped(order: str) -> None:
    old, mask = (255, 3, (2,)), (254, 4, (4,))
    for first in ([THUMBNAIL], [THUMBNAIL] * 3, [old], [mask]):
        data = pages(order, *([one, MAKE] for one in first), [])
        header = read_header(data, max_pixels=LIMIT)
        assert (header.width, header.height) == (64, 48)
        assert (corners(decode(data, max_pixels=LIMIT)) == QUARTERS).all()


def test_thumbnails_after_or_below_the_picture_are_ignored() -> None:
    small = read_header(pages("<", [MAKE], [THUMBNAIL]), max_pixels=LIMIT)
    assert small.width == 8
    assert read_header(pages("<", [MAKE], [THUMBNAIL], below=True), max_pixels=LIMIT).width == 8
    assert read_header(pages("<", [THUMBNAIL]), max_pixels=LIMIT).width == 8  # no other picture


@pytest.mark.parametrize("place", [0, 300, 2**32 - 16])
def test_missing_subdirectories_are_ignored(place: int) -> None:
    data = pages("<", [MAKE, (330, 4, (place,))]).ljust(30_000, b"\xff")
    assert decode(data, max_pixels=LIMIT).shape == (6, 8, 3)


def test_sensor_data_is_found_after_a_missing_subdirectory() -> None:
    data = bytearray(pages("<", [MAKE], [], [SENSOR], below=True))
    at = data.index(struct.pack("<II", 4000, 5000))
    data[at : at + 4] = struct.pack("<I", 2**32 - 16)
    with pytest.raises(CameraRawError):
        read_header(bytes(data), max_pixels=LIMIT)


def test_two_bytes_of_the_cr2_signature_do_not_suffice() -> None:
    assert decode(pages("<", [MAKE], head=b"CR"), max_pixels=LIMIT).shape == (6, 8, 3)


@pytest.mark.parametrize("entry", [(274, 1, (6,)), (274, 3, (6, 6))])
def test_invalid_orientation_of_a_tiff_is_ignored(entry: Entry) -> None:
    assert decode(pages("<", [entry]), max_pixels=LIMIT).shape == (6, 8, 3)


def test_sixteen_bits_with_white_as_zero() -> None:
    grey = np.array(quarters().convert("L"))
    data = bytearray(encoded(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[at : at + 2] = b"\0\0"
    assert (decode(bytes(data), max_pixels=LIMIT)[..., 0] == 255 - grey).all()


def test_cycle_of_directories() -> None:
    data = bytearray(pages("<", [THUMBNAIL], [THUMBNAIL]))
    at = 4000 + 2 + 12 * 10
    data[at : at + 4] = struct.pack("<I", 2000)
    assert read_header(bytes(data), max_pixels=LIMIT).width == 8


def test_orientation_in_xmp_of_a_tiff_is_ignored() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(quarters(60, 40), "TIFF", tiffinfo={700: xmp})
    assert decode(data, max_pixels=LIMIT).shape == (40, 60, 3)


# -- HEIC, which Chromium does not support --------------------------------------------------------


def coloured(primaries: int, transfer: int) -> bytes:
    """The sample HEIC picture with other code points."""
    data = heic()
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def test_colours_of_heic_without_a_profile() -> None:
    plain = corners(decode(coloured(1, 13), max_pixels=LIMIT))
    assert np.abs(plain - QUARTERS).max() <= 2
    for same in ((2, 2), (1, 1), (1, 6)):
        assert (corners(decode(coloured(*same), max_pixels=LIMIT)) == plain).all()
    wide = corners(decode(coloured(12, 13), max_pixels=LIMIT))
    # From Display P3 to sRGB by the matrix of CSS Color 4.
    expected = [(241, 0, 22), (0, 204, 12), (46, 60, 219), (240, 240, 240)]
    assert np.abs(wide - expected).max() <= 4
    linear = corners(decode(coloured(1, 8), max_pixels=LIMIT))
    assert np.abs(linear[3] - 248).max() <= 1


# -- damaged PNG ----------------------------------------------------------------------------------

PIXELS = still()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PIXELS.replace(b"\r\n", b"\n"), UndecodablePictureError),  # transferred as text
        (b"\x89PNG", TruncatedPictureError),
        (PIXELS.replace(b"IHDR", b"IHDX"), UndecodablePictureError),
        (PIXELS[:20] + b"\7" + PIXELS[21:], PictureError),
        (PIXELS[:29] + b"\0" + PIXELS[30:], UndecodablePictureError),  # a CRC
        (PIXELS[:300], TruncatedPictureError),
        (png(64, 48), TruncatedPictureError),
        (animation(), UndecodablePictureError),
        (animation(frame(0)), UndecodablePictureError),
        (animation(frame(3), part(1, other())), UndecodablePictureError),
        (animation(frame(0, 64, 48, 1, 0), part(1, other())), UndecodablePictureError),
        (animation(frame(0, 0, 0, 0, 0), part(1, other())), UndecodablePictureError),
        (animation((b"fcTL", b""), part(1, other())), UndecodablePictureError),
    ],
)
def test_damaged_png(data: bytes, kind: type[PictureError]) -> None:
    with pytest.raises(kind):
        decode(data, max_pixels=LIMIT)


def test_transparent_colour_is_compared_in_full_depth() -> None:
    pixels = decode(sixteen(0, (b"tRNS", b"\x12\x34")), max_pixels=LIMIT)
    assert (pixels[:24, :32] == 255).all()
    assert (pixels[24:, :16] == 0x13).all()


def test_invalid_chunks_cause_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (b"acTL", b"zTXt", b"iCCP", b"gAMA"):
            decode(still((kind, b"\0"), (kind, b"\0")), max_pixels=LIMIT)
