"""Decoded pictures match what Chromium shows, for files of every format."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page

from pictures.decoding import decode
from tests.browser.files import FILES, HDR

MOST, MOST_HDR = 4, 12  # of 255: mean absolute difference

DRAW = """async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d');
    context.fillStyle = 'white';
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    return canvas.toDataURL('image/png');
}"""


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Page:
    return browser.new_page()


def shown(page: Page, data: bytes) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of a picture file as the browser draws it."""
    url = page.evaluate(DRAW, "data:image/*;base64," + base64.b64encode(data).decode())
    drawn = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("name", [*FILES, *HDR])
def test_decoding_matches_the_browser(blank: Page, name: str) -> None:
    data = (FILES | HDR)[name]()
    expected, found = shown(blank, data), decode(data, max_pixels=10**6)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected).mean()
    assert difference < (MOST_HDR if name in HDR else MOST)
