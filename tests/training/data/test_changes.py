"""Format modes and degradations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pictures.decoding import decode
from tests.conftest import encode, photo
from training.data.changes import DEGRADATIONS, JPEG96, RAW, Format, align, crop_center
from training.data.labels import Kind
from training.data.manifest import Row, describe

SCENE = np.asarray(photo(80, 60))


def row(tmp_path: Path, kind: Kind, image_format: str) -> Row:
    file = tmp_path / "picture"
    file.write_bytes(encode(photo(32, 32), image_format))
    return describe(file, tmp_path, kind, source_id="s")


@pytest.mark.parametrize(
    ("kind", "image_format", "aligned"),
    [
        (Kind.SYNTHETIC, "PNG", True),
        (Kind.SYNTHETIC, "JPEG", False),
        (Kind.SYNTHETIC, "WEBP", False),
        (Kind.AUTHENTIC, "PNG", False),
    ],
)
def test_paper_mode_changes_only_lossless_fakes(
    tmp_path: Path, kind: Kind, image_format: str, aligned: bool
) -> None:
    picture = row(tmp_path, kind, image_format)
    assert align(picture, Format.RAW) is RAW
    assert align(picture, Format.PAPER) is (JPEG96 if aligned else RAW)
    assert align(picture, Format.JPEG96) is JPEG96


def test_jpeg_96_equals_the_encoder() -> None:
    expected = decode(encode(photo(80, 60), "JPEG", quality=96, subsampling=2), max_pixels=10**6)
    assert np.array_equal(JPEG96.apply(SCENE), expected)
    assert RAW.apply(SCENE) is SCENE


@pytest.mark.parametrize("series", DEGRADATIONS)
def test_degradations_are_deterministic_and_grow(series: str) -> None:
    shapes = []
    errors = []
    for change in DEGRADATIONS[series].values():
        first, second = change.apply(SCENE), change.apply(SCENE)
        assert np.array_equal(first, second)
        assert first.dtype == np.uint8
        shapes.append(first.shape)
        if first.shape == SCENE.shape:
            errors.append(float(np.abs(first.astype(int) - SCENE).mean()))
    if series in ("jpeg", "webp", "blur", "noise"):
        assert errors == sorted(errors)
        assert errors[0] > 0
    factors = {
        "resize": [(40, 30), (60, 45), (100, 75), (120, 90)],
        "crop": [(72, 54), (60, 45), (40, 30)],
    }
    if series in factors:
        assert [(width, height) for height, width, _ in shapes] == factors[series]


def test_crop_is_central() -> None:
    grid = np.arange(20).reshape(4, 5)
    assert crop_center(grid, 2, 3).tolist() == [[6, 7, 8], [11, 12, 13]]
