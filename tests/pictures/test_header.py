"""Headers agree with the decoders, and reading them takes little time and memory."""

import contextlib
import struct
import subprocess
import sys
import tracemalloc
from types import FrameType
from typing import Any

import pytest
from PIL import Image

from pictures.decoding import decode
from pictures.errors import PictureError, UndecodablePictureError
from pictures.header import ALLOWED_FORMATS, read_header
from pictures.source import MAX_READS, Source
from tests import samples
from tests.pictures.bombs import BOMBS
from tests.samples import encoded, heic, quarters

LIMIT = 4_000_000
MOST_LINES = 50 * MAX_READS  # of Python, executed
MOST_MEMORY = 8 * 2**20  # bytes in addition to the file


@pytest.mark.parametrize("name", BOMBS)
def test_reading_any_header_is_cheap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = BOMBS[name]()
    lines = read = 0
    read_part = Source.read

    def count_line(_: FrameType, event: str, __: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count_line

    def count_bytes(source: Source, at: int, size: int) -> bytes:
        nonlocal read
        part = read_part(source, at, size)
        read += len(part)
        return part

    with monkeypatch.context() as patched, contextlib.suppress(PictureError):
        patched.setattr(Source, "read", count_bytes)
        sys.settrace(count_line)
        try:
            read_header(data, max_pixels=LIMIT)
        finally:
            sys.settrace(None)
    assert 0 < lines < MOST_LINES
    assert 0 < read < 2 * len(data)
    tracemalloc.start()
    with contextlib.suppress(PictureError):
        read_header(data, max_pixels=LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_MEMORY


def test_reading_headers_imports_no_decoder() -> None:
    program = (
        "import sys\nimport pictures.header, pictures.decoders\n"
        "assert not {'PIL', 'pi_heif'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_header_with_too_many_parts() -> None:
    data = encoded(quarters(), "JPEG")
    comment = b"\xff\xfe\0\2"
    assert read_header(data[:2] + comment * 1000 + data[2:], max_pixels=LIMIT).width == 64
    with pytest.raises(UndecodablePictureError, match="more parts"):
        read_header(data[:2] + comment * MAX_READS + data[2:], max_pixels=LIMIT)


@pytest.mark.parametrize("image_format", ALLOWED_FORMATS)
def test_truncated_header_is_refused_or_correct(image_format: str) -> None:
    data = samples.every_format()[image_format]
    whole = read_header(data, max_pixels=LIMIT)
    for end in range(len(data)):
        try:
            found = read_header(data[:end], max_pixels=LIMIT)
        except PictureError:
            continue
        assert found.format == whole.format
        assert {found.width, found.height} == {whole.width, whole.height}


@pytest.mark.parametrize("order", "<>")
def test_tiff_of_either_byte_order(order: str) -> None:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entries = [(256, 3, 60), (257, 4, 40), (274, 3, 6)]
    data = magic + struct.pack(order + "IH", 8, len(entries))
    for tag, kind, value in entries:
        number = struct.pack(order + ("H" if kind == 3 else "I"), value)
        data += struct.pack(order + "HHI", tag, kind, 1) + number.ljust(4, b"\0")
    found = read_header(data, max_pixels=LIMIT)
    assert (found.format, found.width, found.height) == ("TIFF", 40, 60)


def test_big_tiff() -> None:
    data = encoded(quarters(), "TIFF", big_tiff=True)
    assert data[2] == 43
    assert decode(data, max_pixels=LIMIT).shape == (48, 64, 3)


def test_animations_and_files_with_several_pictures() -> None:
    picture = quarters()
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 48))] * 3}
    for name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        data = encoded(picture, name, **more)
        found = read_header(data, max_pixels=LIMIT)
        assert (found.format, found.width, found.height) == (name, 64, 48)
        assert decode(data, max_pixels=LIMIT).shape == (48, 64, 3)


def test_orientation_in_xmp_is_ignored() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    for name in ("JPEG", "PNG", "WEBP"):
        data = encoded(quarters(60, 40), name, xmp=xmp)
        assert read_header(data, max_pixels=LIMIT).width == 60
        assert decode(data, max_pixels=LIMIT).shape == (40, 60, 3)


def test_exif_of_a_second_picture_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(quarters(60, 40), "JPEG", exif=exif)
    data = encoded(quarters(60, 40), "JPEG") + turned
    assert read_header(data, max_pixels=LIMIT).width == 60


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"pitm", b"free"),
        lambda data: data.replace(b"ispe", b"free"),
        lambda data: data.replace(b"ipco", b"free"),
        lambda data: data.replace(b"ipma", b"free"),
        lambda data: data.replace(b"meta", b"free"),
    ],
)
def test_heif_without_a_required_box(damage) -> None:
    with pytest.raises(UndecodablePictureError):
        read_header(damage(heic()), max_pixels=LIMIT)


def test_pictures_without_pixels() -> None:
    for data in (
        samples.png(0, 10, (b"IDAT", b"")),
        samples.png(10, 0, (b"IDAT", b"")),
        b"GIF89a\0\0\0\0\0\0\0," + bytes(10),
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 0, 5) + bytes(40),
    ):
        with pytest.raises(UndecodablePictureError, match="no pixels"):
            read_header(data, max_pixels=LIMIT)
