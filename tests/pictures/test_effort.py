"""Small files that ask for far more than they show, opened in a process that is measured."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from pictures.decoding import UndecodablePictureError, decode, read_header
from tests.samples import encoded, every_format, heic, heif_grid, png, quarters, tiff, tiff_body

MAX_PIXELS = 4_000_000
MIB = 2**20
# A process that decodes files: their outcomes, and by how much each raised the peak, in MiB.
CHILD = f"""
import json, pathlib, resource, sys, warnings
from pictures import decoding
warnings.simplefilter("ignore")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for file in sys.argv[1:]:
    data, outcomes = pathlib.Path(file).read_bytes(), []
    before = peak()
    for function in (decoding.read_header, decoding.decode):
        try:
            function(data, max_pixels={MAX_PIXELS})
            outcomes.append("ok")
        except decoding.PictureError as error:
            outcomes.append(type(error).__name__.removesuffix("Error"))
    print(json.dumps([*outcomes, peak() - before]), flush=True)
"""
ZEROS = zlib.compress(bytes(300 * MIB), 9)  # 0.3 MB
PIXELS = (b"IDAT", zlib.compress(bytes(64 * (3 * 64 + 1))))


def _jpeg(*, scans: int = 0, comments: int = 0, filling: int = 0) -> bytes:
    data = encoded(Image.new("L", (2000, 2000), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    head = b"\xff\xfe\0\2" * comments + b"\xff" * filling
    return data[:2] + head + data[2:-2] + data[last:-2] * scans + b"\xff\xd9"


def _gif(width: int, height: int, blocks: int = 0) -> bytes:
    comment = b"!\xfe" + b"\1a" * blocks + b"\0"
    frame = b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\2\2D\1\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + comment + frame + b";"


def _tiff(*more: tuple[int, int, int]) -> bytes:
    entries = [(256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries += more
    at = tiff_body(len(entries) + 2)
    place = (273, 279) if more[0][0] == 278 else (324, 325)
    entries += [(place[0], 4, at), (place[1], 4, len(ZEROS))]
    return tiff(*sorted(entries), body=ZEROS)


def _overlapping_tags() -> bytes:
    directory = b"".join(
        struct.pack("<HHII", number, 1, 5 * MIB, 8) for number in range(40_000, 42_000)
    )
    entries = struct.pack("<HHII", 256, 4, 1, 64) + struct.pack("<HHII", 257, 4, 1, 64)
    head = b"II*\0" + struct.pack("<IH", 8, 2002)
    return head + entries + directory + bytes(4) + bytes(6 * MIB)


def _webp_canvas() -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + b"\xff\x3f\0" * 2 + bytes(12)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bmp(side: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    pixels = b"\0\2\0\0" * 1_000_000  # run lengths that only move
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + head + bytes(1024) + pixels


def _with_size(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


UNDECODABLE, TOO_MANY, FINE = "UndecodablePicture", "TooManyPixels", "ok"
BOMBS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "png text": (
        lambda: png(64, 64, (b"zTXt", b"a\0\0" + ZEROS), PIXELS),
        UNDECODABLE,
        UNDECODABLE,
    ),
    "png profile": (
        lambda: png(64, 64, (b"iCCP", b"a\0\0" + ZEROS), PIXELS),
        UNDECODABLE,
        UNDECODABLE,
    ),
    "png pixels": (lambda: png(64, 64, (b"IDAT", ZEROS)), FINE, FINE),
    "png chunks": (
        lambda: png(64, 64, *[(b"tEXt", b"a\0b")] * 250_000, PIXELS),
        UNDECODABLE,
        UNDECODABLE,
    ),
    "png size": (lambda: png(2**30, 2**30, PIXELS), TOO_MANY, TOO_MANY),
    "jpeg comments": (lambda: _jpeg(comments=500_000), UNDECODABLE, UNDECODABLE),
    "jpeg filling": (lambda: _jpeg(filling=2_000_000), UNDECODABLE, UNDECODABLE),
    "jpeg scans": (lambda: _jpeg(scans=20_000), UNDECODABLE, UNDECODABLE),
    "gif canvas": (lambda: _gif(65_535, 65_535), TOO_MANY, TOO_MANY),
    "gif comment": (lambda: _gif(64, 64, blocks=2_000_000), UNDECODABLE, UNDECODABLE),
    "tiff strip": (lambda: _tiff((278, 4, 2**31 - 1)), FINE, FINE),
    "tiff tile": (lambda: _tiff((322, 4, 40_000), (323, 4, 40_000)), UNDECODABLE, UNDECODABLE),
    "tiff tags": (_overlapping_tags, "UnsupportedFormat", "UnsupportedFormat"),
    "bmp runs": (lambda: _bmp(1900), FINE, UNDECODABLE),
    "bmp size": (lambda: _bmp(30_000), TOO_MANY, TOO_MANY),
    "webp canvas": (_webp_canvas, UNDECODABLE, UNDECODABLE),
    "avif size": (
        lambda: _with_size(every_format()["AVIF"], 16_000, 16_000),
        TOO_MANY,
        TOO_MANY,
    ),
    "avif lie": (lambda: _with_size(every_format()["AVIF"], 4, 4), FINE, FINE),
    "heif lie": (lambda: _with_size(heic(), 4, 4), FINE, UNDECODABLE),
    "heif size": (lambda: heif_grid(1, 1, 60_000, 60_000), TOO_MANY, TOO_MANY),
    "heif tiles": (
        lambda: heif_grid(10, 10, 64, 64, source=_with_size(heic(), 2000, 2000)),
        UNDECODABLE,
        UNDECODABLE,
    ),
    "heif stack": (lambda: heif_grid(10, 10, 64, 64, b"iovl"), UNDECODABLE, UNDECODABLE),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, float]]:
    folder = tmp_path_factory.mktemp("bombs")
    files = [folder / name for name in BOMBS]
    for file, (make, _, _) in zip(files, BOMBS.values(), strict=True):
        file.write_bytes(make())
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *files], capture_output=True, text=True, timeout=100
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, f"ended after {len(lines)} of {[*BOMBS]}: {child.stderr}"
    return dict(zip(BOMBS, lines, strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_neither_memory_nor_time(
    name: str, outcomes: dict[str, tuple[str, str, float]]
) -> None:
    _, by_header, by_decoding = BOMBS[name]
    header, decoded, grown = outcomes[name]
    assert (header, decoded) == (by_header, by_decoding)
    assert grown < 64, f"{grown:.0f} MiB"


def test_what_proper_encoders_write_is_far_from_the_limits() -> None:
    for data in every_format().values():
        read_header(data, max_pixels=MAX_PIXELS)
        decode(data, max_pixels=MAX_PIXELS)
    thumbnail = encoded(quarters(16, 12), "JPEG")
    data = encoded(quarters(), "JPEG", progressive=True, exif=b"Exif\0\0" + thumbnail * 60)
    assert data.count(b"\xff\xda") > 60
    assert decode(data, max_pixels=MAX_PIXELS).shape == (48, 64, 3)
    many_scans = _jpeg(scans=80)
    assert decode(many_scans, max_pixels=MAX_PIXELS).shape == (2000, 2000, 3)
    tiles = encoded(quarters(), "TIFF", tiffinfo={322: 1024, 323: 1024}, compression="tiff_lzw")
    assert decode(tiles, max_pixels=MAX_PIXELS).shape == (48, 64, 3)


def test_scans_behind_segments_that_hide_them_are_counted() -> None:
    # A thumbnail's end of image inside a segment must not end the count.
    data = _jpeg(scans=200)
    hidden = data[:2] + b"\xff\xe5\0\6\xff\xd9\xff\xd9" + data[2:]
    with pytest.raises(UndecodablePictureError, match="scans"):
        read_header(hidden, max_pixels=MAX_PIXELS)
