"""Invalid metadata (random bytes) neither prevents decoding nor changes pixels."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import numpy as np
import pytest

from pictures.decoding import decode
from tests.browser.builders import exif, indexed, jpeg, linear_profile, scene, still
from tests.samples import encoded

LIMIT = 1_000_000
CASES = 400
LENGTHS = (0, 1, 2, 3, 5, 8, 13, 30, 200)

SEGMENTS = {  # by marker: possible first bytes
    0xE0: (b"JFIF\0", b"JFXX\0", b""),
    0xE1: (b"Exif\0\0", b"Exif\0\0" + exif(1), b"http://ns.adobe.com/xap/1.0/\0", b""),
    0xE2: (b"ICC_PROFILE\0", b"ICC_PROFILE\0\1\2", b"MPF\0", b"MPF\0II*\0\x08\0\0\0", b"FPXR\0"),
    0xED: (b"Photoshop 3.0\0", b"Photoshop 3.0\x008BIM", b"Photoshop 3.0\x008BIM\4\4\0\0"),
    0xEE: (b"Adobf", b""),
    0xFE: (b"",),
}
TAGS = (269, 270, 271, 282, 283, 296, 305, 306, 315, 316, 318, 319, 700, 33432, 34665, 34853, 37724)


def random_jpeg(generator: random.Random) -> bytes:
    marker = generator.choice(list(SEGMENTS))
    content = generator.choice(SEGMENTS[marker]) + generator.randbytes(generator.choice(LENGTHS))
    data = jpeg()
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def random_png(generator: random.Random) -> bytes:
    kind = generator.choice(
        (b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"tIME", b"eXIf", b"hIST", b"sPLT")
    )
    return still((kind, generator.randbytes(generator.choice(LENGTHS))))


def random_gif(generator: random.Random) -> bytes:
    data = encoded(indexed(), "GIF")
    at = 13 + (3 << (data[10] & 7) + 1)
    label = generator.choice((0xFE, 0xFF, 0x01, 0x33))
    blocks = [generator.randbytes(generator.choice((1, 3, 11, 50))) for _ in range(3)]
    body = b"".join(bytes([len(one)]) + one for one in blocks[: generator.randint(0, 3)])
    return data[:at] + b"!" + bytes([label]) + body + b"\0" + data[at:]


def random_tiff(generator: random.Random) -> bytes:
    """A TIFF with one more tag."""
    data = encoded(scene(), "TIFF", compression="tiff_lzw")
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    entries = [data[at + 2 + 12 * n :][:12] for n in range(count)]
    head = (
        generator.choice(TAGS),
        generator.randrange(19),
        generator.choice((0, 1, 3, 100, 2**31)),
    )
    entries.append(struct.pack("<HHI", *head) + generator.randbytes(4))
    entries.sort(key=lambda entry: int.from_bytes(entry[:2], "little"))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def random_webp(generator: random.Random) -> bytes:
    more = {"exif": generator.randbytes(30), "xmp": generator.randbytes(30)}
    profile = linear_profile()[:40] + generator.randbytes(60)
    return encoded(scene(), "WEBP", lossless=True, icc_profile=profile, **more)


def random_avif(generator: random.Random) -> bytes:
    xmp = b"the place of the metadata"
    data = encoded(scene(), "AVIF", speed=10, xmp=xmp)
    return data.replace(xmp, generator.randbytes(len(xmp)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "plain", "cases"),
    [
        (random_jpeg, jpeg, CASES),
        (random_png, still, CASES),
        (random_gif, lambda: encoded(indexed(), "GIF"), CASES),
        (random_tiff, lambda: encoded(scene(), "TIFF"), CASES),
        (random_webp, lambda: encoded(scene(), "WEBP", lossless=True), 20),
        (random_avif, lambda: encoded(scene(), "AVIF", speed=10), 5),
    ],
)
def test_random_metadata_changes_no_pixels(
    make: Callable[[random.Random], bytes], plain: Callable[[], bytes], cases: int
) -> None:
    generator = random.Random(1)
    expected = decode(plain(), max_pixels=LIMIT)
    for _ in range(cases):
        data = make(generator)
        assert np.array_equal(decode(data, max_pixels=LIMIT), expected), data
