from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFilter

from model.text import mostly_text
from tests.writing import page_of_text


def as_jpeg(picture, quality=75):
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def scanned(noise):
    page = np.asarray(page_of_text(1240, 1754, 21)).astype(np.float32)
    light = np.linspace(0.7, 1, page.shape[1])[None, :, None]
    grain = np.random.default_rng(0).normal(0, noise, page.shape)
    return Image.fromarray(np.clip(page * light * 0.9 + 10 + grain, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: page_of_text(1240, 1754, 21), id="page"),
        pytest.param(lambda: page_of_text(2480, 3508, 42), id="page in more dots per inch"),
        pytest.param(lambda: page_of_text(595, 842, 10), id="page in fewer"),
        pytest.param(lambda: as_jpeg(scanned(4)), id="scan"),
        pytest.param(lambda: scanned(12), id="scan with noise"),
        pytest.param(
            lambda: as_jpeg(page_of_text(1240, 1754, 21).filter(ImageFilter.GaussianBlur(1.5))),
            id="blur",
        ),
        pytest.param(
            lambda: page_of_text(1240, 1754, 21).rotate(3, fillcolor="white"), id="turned"
        ),
        pytest.param(lambda: page_of_text(1600, 900, 16, "black", "lime"), id="terminal"),
        pytest.param(lambda: page_of_text(1920, 1080, 18, "#1e1e1e", "#dcdcdc"), id="dark page"),
        pytest.param(lambda: page_of_text(1920, 1080, 48, lines=8), id="slide"),
        pytest.param(lambda: page_of_text(600, 1800, 24), id="receipt"),
        pytest.param(lambda: page_of_text(300, 300, 14), id="small"),
    ],
)
def test_text(make):
    assert mostly_text(np.asarray(make().convert("RGB")))


def with_a_sign(photo):
    picture = Image.fromarray(photo(600, 800))
    picture.paste(page_of_text(300, 150, 20), (250, 200))
    return picture


def test_no_text(photo):
    grid = np.indices((512, 512)).sum(0) // 8 % 2 * 255
    pictures = {
        **{f"photo {n}": photo(480 + 64 * n, 640) for n in range(4)},
        "tiny photo": photo(20, 30),
        "plain": np.full((512, 512, 3), 128, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8),
        "checkers": np.repeat(grid[..., None], 3, axis=2).astype(np.uint8),
        "stripes": np.tile((np.arange(512) // 4 % 2 * 255)[:, None], (512, 1, 3)).astype(np.uint8),
        "a sign": np.asarray(with_a_sign(photo)),
        "a pixel": np.zeros((1, 1, 3), np.uint8),
        "a line": np.zeros((1, 5000, 3), np.uint8),
    }
    assert [name for name, picture in pictures.items() if mostly_text(picture)] == []
