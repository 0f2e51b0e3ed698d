"""Decoding of several frames of animations, and pages of TIFF."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pictures import frames
from pictures.decoders import ABORTED, Decoders
from pictures.errors import DecodingAbortedError, PictureError
from pictures.frames import Moment
from pictures.header import read_header
from pictures.png import chunk
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


def riff_frames(count: int) -> bytes:
    """Chunks of frames without pixels."""
    return (b"ANMF" + struct.pack("<I", 16) + bytes(12) + b"\xff\xff\xff\0") * count


def png_frames(count: int) -> bytes:
    """Control chunks of frames without pixels."""
    one = struct.pack(">IIIIIHHBB", 0, *SIZE, 0, 0, 9, 1, 0, 0)
    return chunk(b"fcTL", one) * count


def with_times(avif: bytes, entries: list[tuple[int, int]]) -> bytes:
    """Replace the first entries of the table of delays: count and delay each."""
    at = avif.index(b"stts") + 12
    for place, entry in enumerate(entries):
        avif = avif[: at + 8 * place] + struct.pack(">II", *entry) + avif[at + 8 * place + 8 :]
    return avif


def declaring(png: bytes, count: int) -> bytes:
    at = png.index(b"acTL") - 4
    return png[:at] + chunk(b"acTL", struct.pack(">II", count, 0)) + png[at + 20 :]


def inserted(png: bytes, kind: bytes, more: bytes) -> bytes:
    """Insert chunks before the first of a type."""
    at = png.index(kind) - 4
    return png[:at] + more + png[at:]


def bomb() -> bytes:
    """A text chunk that Pillow refuses to decompress."""
    return chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22)))


def padded(gif: bytes) -> bytes:
    """Insert a comment of many blocks before the second frame."""
    at = [at for at in range(len(gif)) if gif.startswith(b"\x21\xf9\x04", at)][1]
    return gif[:at] + b"\x21\xfe" + b"\1 " * 200_001 + b"\0" + gif[at:]


LIES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "first delay of AVIF": ("AVIF", lambda data: with_times(data, [(2**32 - 1, 2**32 - 1)])),
    "no delay of AVIF": ("AVIF", lambda data: with_times(data, [(0, 1)])),
    "frames after the end of WebP": ("WEBP", lambda data: data + riff_frames(800)),
    "frames at the end of PNG": ("PNG", lambda data: inserted(data, b"IEND", png_frames(800))),
    "declared frames of PNG": ("PNG", lambda data: declaring(data, 1_000_000)),
    "both of PNG": (
        "PNG",
        lambda data: declaring(inserted(data, b"IEND", png_frames(800)), 1_000_000),
    ),
    "second declaration of PNG": (
        "PNG",
        lambda data: inserted(data, b"fcTL", chunk(b"acTL", bytes(8))),
    ),
    "damaged control of PNG": (
        "PNG",
        lambda data: inserted(data, b"fdAT", png_frames(1)[:-1] + b"x"),
    ),
    "text of PNG": ("PNG", lambda data: inserted(data, b"fcTL", bomb())),
    "comment of GIF": ("GIF", padded),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_file_declares_hides_no_frames(decoders: Decoders, lie: str) -> None:
    kind, change = LIES[lie]
    data = change(animation(kind, pictures(10)))
    found = colours(decoders, data, 8)
    assert len(found) == 8
    assert {0, 4} <= set(found)
    assert decoders.frames(data, 8)[-1].number == 10 or lie == "both of PNG"


@pytest.mark.parametrize(
    "lie", ["frames after the end of WebP", "frames at the end of PNG", "declared frames of PNG"]
)
def test_frames_are_counted_not_believed(lie: str) -> None:
    kind, change = LIES[lie]
    assert frames.count_frames(change(animation(kind, pictures(10))), kind) == 10


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_frames_before_a_damaged_one_take_the_places_of_later_ones(
    decoders: Decoders, kind: str
) -> None:
    data = bytearray(animation(kind, pictures(20)))
    if kind == "GIF":
        at = _descriptors(bytes(data))[9] + 10
        flags = data[at - 1]
        data[at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)] = 99  # bits of the smallest code
    else:
        at = [at for at in range(len(data)) if data.startswith(b"fdAT", at)][8] + 8
        data[at : at + 8] = b"\xff" * 8
    found = decoders.frames(bytes(data), 8)
    assert len(found) == 8
    assert [frame.number for frame in found] == sorted({frame.number for frame in found})
    assert found[-1].number == 9
    assert all(frame.time_ms == 100 * (frame.number - 1) for frame in found)


def directories(tiff: bytes) -> list[tuple[int, int]]:
    """Offsets of the directories of a TIFF, and of the links to the next."""
    found = []
    (at,) = struct.unpack_from("<I", tiff, 4)
    while at:
        link = at + 2 + 12 * struct.unpack_from("<H", tiff, at)[0]
        found.append((at, link))
        (at,) = struct.unpack_from("<I", tiff, link)
    return found


def test_bad_link_hides_only_the_pages_after_it(decoders: Decoders) -> None:
    data = bytearray(animation("TIFF", pictures(10)))
    _, link = directories(bytes(data))[-1]
    data[link : link + 4] = struct.pack("<I", len(data) + 100)
    found = decoders.frames(bytes(data), 8)
    assert (len(found), found[-1].number) == (8, 10)
    _, link = directories(animation("TIFF", pictures(10)))[3]
    data[link : link + 4] = b"\xff" * 4
    assert [one.number for one in decoders.frames(bytes(data), 8)] == [1, 2, 3, 4]


def test_pages_far_from_the_start_are_decoded(decoders: Decoders) -> None:
    made = [Image.new("L", (8, 8), at % 256) for at in range(1000)]
    found = decoders.frames(animation("TIFF", made), 8)
    assert len(found) == 8
    assert found[-1].number == 1000
    assert [frame.pixels[0, 0, 0] for frame in found] == [(one.number - 1) % 256 for one in found]
    assert decoders.preview(animation("TIFF", made), 8, frame=1000)


def test_preview_of_a_page_that_is_missing_is_an_error(decoders: Decoders) -> None:
    with pytest.raises(PictureError):
        decoders.preview(animation("TIFF", pictures(2)), 8, frame=3)
