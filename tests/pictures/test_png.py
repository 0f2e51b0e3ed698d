"""The PNG encoder, checked with Pillow's decoder."""

import io

import numpy as np
import pytest
from PIL import Image

from pictures import png


def read(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return np.asarray(image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (40, 50), (1, 1, 3), (33, 20, 3)])
def test_encoding_is_lossless(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert (read(png.encode([noise])) == noise).all()


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_bands_of_any_height(rows: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 9, 3), np.uint8)
    parts = (noise[top : top + rows] for top in range(0, 40, rows))
    assert png.encode(parts) == png.encode([noise])


def test_smooth_and_flat_pictures_compress_well() -> None:
    slope = np.add.outer(np.arange(256), np.arange(256)).astype(np.uint8)
    assert len(png.encode([slope])) < slope.size / 50
    assert len(png.encode([np.full((256, 256, 3), 7, np.uint8)])) < slope.size / 50
