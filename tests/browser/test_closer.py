"""Views of a picture's own pixels, computed in the browser."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.browser.pages import Console, MadeList, expect_held, made_record, rows
from tests.conftest import encode, photo

SIDE = 512
MEAN = """([left, top, side]) => {
    const image = document.getElementById("closer-image");
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(left, top, side, side);
    const sums = [0, 0, 0];
    let spread = 0;
    for (let at = 0; at < data.length; at += 4) {
        for (const channel of [0, 1, 2]) sums[channel] += data[at + channel];
        spread += Math.abs(data[at] - 128);
    }
    return [...sums, spread].map((sum) => sum / side / side);
}"""
"""JavaScript: means of red, green, blue and of the distance of red from 128, of a square."""


def saved(quality: int) -> Image.Image:
    """A photo that was saved as a JPEG."""
    return Image.open(io.BytesIO(encode(photo(SIDE, SIDE), "JPEG", quality=quality)))


def with_patch(ground: Image.Image, patch: Image.Image, left: int, top: int) -> Image.Image:
    ground = ground.convert("RGB")
    ground.paste(patch, (left, top))
    return ground


def grain(side: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def look(page: Page, picture: Image.Image, view: str) -> None:
    size = {"width": SIDE, "height": SIDE}
    MadeList(page, [made_record(1, image=made_record(1)["image"] | size)])
    original = encode(picture, "PNG")
    page.route(
        "**/v1/detections/*/image",
        lambda route: route.fulfill(body=original, content_type="image/png"),
    )
    page.reload()
    rows(page).click()
    page.get_by_label("Look closer").select_option(view)
    expect(page.locator("#closer-image")).to_have_js_property("naturalWidth", SIDE)


def test_grid_of_a_pasted_part_is_red(alone: Page) -> None:
    """Its blocks lie three pixels beside those of the rest."""
    ground = saved(40)
    patch = ground.convert("RGB").crop((64, 64, 256, 256))
    look(alone, with_patch(ground, patch, 259, 259), "JPEG grid")
    red, green, *_ = alone.evaluate(MEAN, [328, 328, 100])
    assert red > green + 100
    red, green, *_ = alone.evaluate(MEAN, [64, 64, 128])
    assert red == pytest.approx(green, abs=1)
    assert red > 110
    expect(alone.locator("#closer-note")).to_contain_text("Nothing is seen after resizing")


def test_error_level_of_a_new_part_is_higher(alone: Page) -> None:
    look(alone, with_patch(saved(90), grain(128), 256, 256), "Error level")
    new, rest = (alone.evaluate(MEAN, [at, at, 100])[0] for at in (270, 50))
    assert new > 2 * rest


def test_noise_of_a_smooth_part_is_missing(alone: Page) -> None:
    smooth = Image.new("RGB", (128, 128), (90, 120, 60))
    look(alone, with_patch(photo(SIDE, SIDE), smooth, 256, 256), "Noise residual")
    assert alone.evaluate(MEAN, [260, 260, 120])[3] < 1
    assert alone.evaluate(MEAN, [50, 50, 120])[3] > 10


def test_view_belongs_to_one_picture(alone: Page) -> None:
    look(alone, photo(SIDE, SIDE), "Error level")
    alone.keyboard.press("Escape")
    rows(alone).click()
    expect(alone.locator("#closer-image")).to_be_hidden()
    expect(alone.get_by_label("Look closer")).to_have_value("")


def test_late_view_is_not_taken_for_that_of_the_next_picture(alone: Page) -> None:
    size = {"width": SIDE, "height": SIDE}
    MadeList(alone, [made_record(n, image=made_record(n)["image"] | size) for n in (1, 2)])
    held: list[Route] = []
    workers: list[Route] = []
    alone.route("**/v1/detections/*/image", lambda route: held.append(route))
    alone.route("**/static/analysis.js", lambda route: workers.append(route))
    alone.reload()
    for place in (1, 0):
        rows(alone).nth(place).click()
        with alone.expect_request("**/v1/detections/*/image"):
            alone.get_by_label("Look closer").select_option("Noise residual")
    expect_held(alone, held, 2)
    smooth = Image.new("RGB", (SIDE, SIDE), (90, 120, 60))
    with alone.expect_request("**/static/analysis.js"):
        for route, picture in zip(held, (smooth, grain(SIDE)), strict=True):
            with alone.expect_request_finished(lambda one: one.url.endswith("/image")):
                route.fulfill(body=encode(picture, "PNG"), content_type="image/png")
    expect(alone.locator("#closer-note")).to_have_text("Noise residual: being prepared …")
    expect_held(alone, workers, 1)
    workers[0].continue_()
    expect(alone.locator("#closer-image")).to_have_js_property("naturalWidth", SIDE)
    assert alone.evaluate(MEAN, [50, 50, 120])[3] > 10


def test_view_of_a_file_that_no_browser_reads(alone: Page, console: Console) -> None:
    """Is made from what the service renders, and says so."""
    MadeList(alone, [made_record(1)])
    alone.route("**/v1/detections/*/image", lambda route: route.fulfill(body=b"II*\0 no pixels"))
    alone.reload()
    rows(alone).click()
    alone.get_by_label("Look closer").select_option("Noise residual")
    expect(alone.locator("#closer-note")).to_contain_text("a JPEG made by the service was used")
    expect(alone.locator("#closer-image")).to_be_visible()


def test_tools_wait_for_their_code(alone: Page) -> None:
    """A click that nothing hears yet would be lost."""
    held: list[Route] = []
    alone.route("**/static/comparison.js", lambda route: held.append(route))
    MadeList(alone, [made_record(0)])
    alone.reload()
    with alone.expect_request("**/static/comparison.js"):
        rows(alone).click()
    compare = alone.get_by_role("button", name="Compare")
    expect(alone.get_by_role("button", name="Zoom in")).to_be_visible()
    expect(compare).to_be_disabled()
    expect_held(alone, held, 1)
    held[0].continue_()
    compare.click()
    expect(alone.get_by_role("button", name="Stop comparing")).to_be_visible()
