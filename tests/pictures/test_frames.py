"""Counting frames and pages."""

from io import BytesIO

import pytest
from PIL import Image

from pictures.frames import count_frames
from pictures.header import ALLOWED_FORMATS

FRAMES = 5
ANIMATED = ["GIF", "PNG", "WEBP", "AVIF", "TIFF"]


def animation(kind: str, frames: int = FRAMES, side: int = 16) -> bytes:
    pictures = [Image.effect_noise((side, side), 20 + n).convert("RGB") for n in range(frames)]
    file = BytesIO()
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:])
    return file.getvalue()


@pytest.mark.parametrize("kind", ANIMATED)
def test_frames_are_counted(kind: str) -> None:
    assert count_frames(animation(kind), kind) == FRAMES


@pytest.mark.parametrize("kind", sorted({*ALLOWED_FORMATS} - {"HEIF"}))
def test_still_has_one_frame(kind: str) -> None:
    file = BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    assert count_frames(file.getvalue(), kind) == 1


def test_frames_with_many_blocks_are_counted() -> None:
    assert count_frames(animation("GIF", frames=40, side=200), "GIF") == 40


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_truncated_file_has_no_count(kind: str) -> None:
    file = animation(kind)
    assert count_frames(file[: len(file) * 3 // 4], kind) is None


def test_file_with_too_many_blocks_has_no_count() -> None:
    frame = b"," + bytes(8) + b"\0\2" + b"\1\0" * 10**6 + b"\0"
    assert count_frames(b"GIF89a" + bytes(7) + frame + b";", "GIF") is None
