"""Decoding of several frames of animations, and pages of TIFF."""

import io
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pictures import frames
from pictures.decoders import ABORTED, Decoders
from pictures.errors import DecodingAbortedError, PictureError
from pictures.frames import Moment
from pictures.header import read_header
from tests.samples import encoded

LIMIT = 1_000_000
SIZE = (64, 48)
COLOURS = [(220, 30, 30), (30, 200, 40), (40, 50, 210), (230, 220, 20), (20, 210, 220)]
ANIMATED = {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}}


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    pool = Decoders(1, max_pixels=LIMIT)
    yield pool
    pool.close()


def pictures(count: int = 5, size: tuple[int, int] = SIZE) -> list[Image.Image]:
    return [Image.new("RGB", size, COLOURS[at % 5]) for at in range(count)]


def animation(kind: str, made: list[Image.Image], **options: object) -> bytes:
    options = {"duration": 100, **ANIMATED.get(kind, {}), **options}
    return encoded(made[0], kind, save_all=True, append_images=made[1:], **options)


def colours(decoders: Decoders, data: bytes, most: int) -> list[int]:
    """Which of `COLOURS` each frame has."""
    found = decoders.frames(data, most)
    means = [frame.pixels.reshape(-1, 3).mean(0) for frame in found]
    return [int(np.abs(np.array(COLOURS) - mean).sum(1).argmin()) for mean in means]


@pytest.mark.parametrize("kind", [*ANIMATED, "TIFF"])
def test_frames_spread_over_the_whole_animation(decoders: Decoders, kind: str) -> None:
    data = animation(kind, pictures())
    found = decoders.frames(data, 3)
    assert [frame.number for frame in found] == [1, 3, 5]
    times = [None] * 3 if kind == "TIFF" else [0, 200, 400]
    assert [frame.time_ms for frame in found] == times
    assert colours(decoders, data, 3) == [0, 2, 4]
    assert colours(decoders, data, 8) == [0, 1, 2, 3, 4]
    assert (decoders.frames(data, 8)[0].pixels == decoders.decode(data)).all()


@pytest.mark.parametrize("kind", [*ANIMATED, "TIFF"])
def test_preview_shows_the_frame(decoders: Decoders, kind: str) -> None:
    shown = Image.open(io.BytesIO(decoders.preview(animation(kind, pictures()), 32, frame=4)))
    assert shown.size == (32, 24)
    assert np.abs(np.asarray(shown, int) - COLOURS[3]).max() < 8


@pytest.mark.parametrize("kind", ANIMATED)
def test_frames_spread_over_time_not_over_their_number(kind: str) -> None:
    data = animation(kind, pictures(), duration=[1000, 20, 20, 20, 3000])
    header = read_header(data, max_pixels=LIMIT)
    assert frames.choose(data, header, 3, LIMIT) == [
        Moment(1, 0),
        Moment(2, 1000),
        Moment(5, 1060),
    ]


def test_browsers_display_the_shortest_frames_for_longer() -> None:
    data = animation("GIF", pictures(3), duration=10)
    header = read_header(data, max_pixels=LIMIT)
    assert [one.time_ms for one in frames.choose(data, header, 8, LIMIT)] == [0, 100, 200]


def test_pages_of_another_size_are_left_out(decoders: Decoders) -> None:
    made = [*pictures(2), Image.new("RGB", (32, 48)), *pictures(3)[2:]]
    data = encoded(made[0], "TIFF", save_all=True, append_images=made[1:])
    assert [frame.number for frame in decoders.frames(data, 8)] == [1, 2, 4]
    assert colours(decoders, data, 8) == [0, 1, 2]


def test_frames_up_to_the_last_have_no_more_pixels_than_the_largest_still(
    decoders: Decoders,
) -> None:
    """Any frame needs all frames before it, so that their number decides about the work."""
    side = 400  # 160,000 pixels: six frames
    data = animation("GIF", pictures(20, (side, side)))
    found = decoders.frames(data, 8)
    assert [frame.number for frame in found] == [1, 2, 3, 4, 5, 6]
    pages = animation("TIFF", pictures(20, (side, side)))
    assert [one.number for one in decoders.frames(pages, 8)] == [1, 4, 8, 12, 16, 20]


def test_many_tiny_frames_are_limited_too() -> None:
    data = animation("GIF", [Image.new("L", (1, 1), at % 250) for at in range(600)])
    header = read_header(data, max_pixels=LIMIT)
    assert frames.choose(data, header, 8, LIMIT)[-1].number == LIMIT // 4096


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_frames_before_a_damaged_one_are_decoded(decoders: Decoders, kind: str) -> None:
    data = bytearray(animation(kind, noise()))
    place = len(data) * 5 // 8
    data[place : place + 400] = b"\xff" * 400
    found = [frame.number for frame in decoders.frames(bytes(data), 8)]
    assert found in ([1, 2], [1, 2, 3], [1, 2, 3, 4])


def test_damaged_page_is_left_out(decoders: Decoders) -> None:
    made = noise()
    options = {"save_all": True, "compression": "tiff_adobe_deflate"}
    data = bytearray(encoded(made[0], "TIFF", append_images=made[1:], **options))
    place = len(data) // 2
    data[place : place + 400] = b"\xff" * 400
    assert [frame.number for frame in decoders.frames(bytes(data), 8)] == [1, 2, 4, 5]


def noise() -> list[Image.Image]:
    return [Image.effect_noise(SIZE, 90).convert("RGB") for _ in range(5)]


def test_damaged_first_frame_is_an_error(decoders: Decoders) -> None:
    data = bytearray(animation("WEBP", pictures()))
    place = data.index(b"ANMF") + 8 + 16
    data[place : place + 60] = b"\xff" * 60
    with pytest.raises(PictureError):
        decoders.frames(bytes(data), 8)


def test_frame_beyond_the_canvas_ends_the_animation(decoders: Decoders) -> None:
    """Pillow would enlarge the canvas to 65,535 × 65,535 pixels."""
    data = bytearray(animation("GIF", pictures()))
    third = _descriptors(bytes(data))[2]
    data[third + 5 : third + 9] = struct.pack("<HH", 65535, 65535)
    assert [frame.number for frame in decoders.frames(bytes(data), 8)] == [1, 2]


def test_frame_beyond_the_canvas_of_a_png_is_not_decoded(decoders: Decoders) -> None:
    data = bytearray(animation("PNG", noise()))
    third = [at for at in range(len(data)) if data.startswith(b"fcTL", at)][2]
    data[third + 8 : third + 16] = struct.pack(">II", 2**30, 2**30)
    data[third + 30 : third + 34] = struct.pack(">I", zlib.crc32(data[third : third + 30]))
    assert [frame.number for frame in decoders.frames(bytes(data), 8)] == [1, 2]


@pytest.mark.parametrize("kind", [*ANIMATED, "TIFF"])
def test_damaged_files_lose_frames_or_are_refused(decoders: Decoders, kind: str) -> None:
    whole = animation(kind, noise())
    random = np.random.default_rng(1)
    for _ in range(20):
        data = bytearray(whole)
        for place in random.integers(12, len(data), 4):
            data[place] = random.integers(256)
        try:
            found = decoders.frames(bytes(data), 8)
        except PictureError:
            continue
        assert found[0].number == 1
        assert len({frame.pixels.shape for frame in found}) == 1


def _descriptors(gif: bytes) -> list[int]:
    """Offsets of the image descriptors of a GIF of uniform frames."""
    starts = [at for at in range(len(gif)) if gif.startswith(b"\x21\xf9\x04", at)]
    return [gif.index(b",", at + 8) for at in starts]


def test_first_frame_remains_if_several_exceed_the_limits(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def abort(*_: object) -> None:
        raise DecodingAbortedError(ABORTED)

    monkeypatch.setattr(decoders, "_frames", abort)
    (frame,) = decoders.frames(animation("GIF", pictures()), 8)
    assert frame.number == 1


def test_still_has_one_frame(decoders: Decoders) -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP"):
        (frame,) = decoders.frames(encoded(pictures()[0], kind), 8)
        assert frame.number == 1


def test_default_image_of_an_apng_is_not_a_frame(decoders: Decoders) -> None:
    default = Image.new("RGB", SIZE)
    data = encoded(
        default, "PNG", save_all=True, append_images=pictures(), default_image=True, duration=100
    )
    found = decoders.frames(data, 8)
    assert [frame.number for frame in found] == [1, 2, 3, 4, 5]
    assert colours(decoders, data, 8) == [0, 1, 2, 3, 4]


def test_times_increase(decoders: Decoders) -> None:
    found = decoders.frames(animation("WEBP", pictures()), 8)
    assert all((a.time_ms or 0) < (b.time_ms or 0) for a, b in pairwise(found))
