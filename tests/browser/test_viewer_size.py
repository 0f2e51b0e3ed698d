"""The size of the picture: zoom, magnifier, side by side, and its part of the window."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.pages import (
    FACTS,
    SIZE,
    MadeList,
    answer,
    expect_natural_size,
    fact,
    headline,
    made_record,
    open_made,
    place,
    places,
    row,
    rows,
    settle,
)

NOTICED = FACTS | {"notice": "A score is no proof. " * 20}


@pytest.fixture
def page(alone: Page) -> Page:
    return alone


def test_picture_and_its_legend_fit_the_window(page: Page) -> None:
    open_made(page, 4, image=made_record(4)["image"] | {"height": SIZE[0]})
    detection, viewer = places(page, "#detection, #viewer")
    assert viewer["y"] + viewer["height"] <= detection["y"] + detection["height"]


@pytest.mark.parametrize(
    ("window", "image"),
    [
        ((1280, 720), (6000, 4000)),
        ((1280, 800), (4000, 3000)),
        ((3840, 2160), (6000, 4000)),
        ((375, 812), (3000, 4000)),
        ((375, 812), (4000, 3000)),
    ],
)
def test_picture_has_half_of_the_window_and_its_result_stays(
    alone: Page, window: tuple[int, int], image: tuple[int, int]
) -> None:
    """The picture fills its pane, or the whole width where half of the window is more."""
    alone.set_viewport_size({"width": window[0], "height": window[1]})
    size = {"width": image[0], "height": image[1]}
    MadeList(alone, [made_record(4, image=made_record(4)["image"] | size)])
    alone.route("**/v1/model", answer(NOTICED))
    alone.reload()
    expect(alone.locator("#notice-title")).to_be_visible()
    rows(alone).click()
    settle(alone)
    expect(alone.locator("#stage")).to_be_in_viewport(ratio=1)
    panes, stage = places(alone, "#panes, #stage")
    gap = min(panes["width"] - stage["width"], panes["height"] - stage["height"])
    assert gap == pytest.approx(0, abs=1)
    half = window[0] * window[1] / 2
    assert panes["width"] * panes["height"] >= half or stage["width"] == window[0]
    expect(headline(alone)).to_be_in_viewport(ratio=1)
    fact(alone, "Total").scroll_into_view_if_needed()
    for part in (".verdict", ".score .number", ".manipulated"):
        expect(headline(alone).locator(part)).to_be_in_viewport(ratio=1)


def test_phone_shows_the_picture_at_once(page: Page) -> None:
    page.route("**/v1/model", answer(NOTICED))
    page.set_viewport_size({"width": 375, "height": 812})
    open_made(page, 4)
    expect(page.locator("#notice-title")).to_be_visible()
    expect(page.locator("#stage")).to_be_in_viewport(ratio=1)
    expect(headline(page)).to_be_in_viewport(ratio=1)
    names = ("Back to the list", "Previous", "Next", "Delete")
    assert len({place(page.get_by_role("button", name=name))["y"] for name in names}) == 1
    page.locator("#notice-title").click()
    expect(page.locator("#notice-text")).to_be_visible()


def test_side_by_side_has_the_whole_width(page: Page) -> None:
    open_made(page, 4)
    page.locator("#tools").get_by_text("Side by side").click()
    original = page.get_by_role("group", name="Original")
    for pane in (original, page.get_by_role("group", name="With the layer")):
        assert place(pane)["width"] > 400
    page.keyboard.press("o")
    expect(original).to_be_hidden()
    expect(page.locator("#picture")).to_be_visible()


def test_side_by_side_shows_the_same_place(page: Page) -> None:
    open_made(page, 4)
    page.locator("#tools").get_by_text("Side by side").click()
    original = page.get_by_role("group", name="Original")
    layered = page.get_by_role("group", name="With the layer")
    expect_natural_size(original.get_by_role("img"), SIZE)
    one, other = places(page, ".pane:not([hidden])")
    assert one["y"] == other["y"]
    assert one["x"] + one["width"] <= other["x"]
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
    layered.evaluate("pane => pane.scrollTo(40, 30)")
    expect(original).to_have_js_property("scrollLeft", 40)
    expect(original).to_have_js_property("scrollTop", 30)


@pytest.mark.parametrize(
    ("form", "source"), [("JPEG", re.compile("/image$")), ("TIFF", "**/image?size=8192")]
)
def test_zoom_shows_single_pixels_of_all_there_are(
    alone: Page, form: str, source: str | re.Pattern[str]
) -> None:
    """The original is loaded when it is zoomed, or a JPEG of what browsers do not show."""
    page = alone
    image = made_record(1)["image"] | {"width": 4000, "height": 2500, "format": form}
    open_made(page, 1, image=image)
    with page.expect_request(source):
        page.locator("#stage").dblclick()
    expect(page.locator("#zoom-value")).to_have_text("100 %")
    expect(page.locator("#stage")).to_have_css("width", "4000px")
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator("#picture")).to_have_css("image-rendering", "pixelated")
    pane = page.get_by_role("group", name="With the layer")
    before = pane.evaluate("pane => pane.scrollLeft")
    pane.press("ArrowLeft")
    expect(pane).not_to_have_js_property("scrollLeft", before)
    page.get_by_role("button", name="Zoom out").click()
    expect(page.locator("#zoom-value")).to_have_text("100 %")
    page.keyboard.press("z")
    expect(pane).not_to_have_attribute("tabindex", "0")


def test_zoom_of_100_and_200_percent_is_exact(browser: Browser, page_files: str) -> None:
    """One pixel of the picture is one, or two by two, of the screen, also of a dense one."""
    size = {"width": 1280, "height": 800}
    with browser.new_context(base_url=page_files, viewport=size, device_scale_factor=2) as context:
        page = context.new_page()
        page.route("**/v1/model", lambda route: route.fulfill(json=FACTS))
        MadeList(page, [made_record(1)])
        page.goto("/")
        rows(page).click()
        stage = page.locator("#stage")
        expect_natural_size(page.locator("#picture"), SIZE)
        for key, width in (("0", SIZE[0] / 2), ("9", SIZE[0])):
            page.keyboard.press(key)
            expect(stage).to_have_css("width", f"{width:g}px")
            expect(page.locator("#picture")).to_have_css("image-rendering", "pixelated")
        value = page.locator("#zoom-value")
        for shown in ("Fit", "100 %", "200 %"):
            value.click()
            expect(value).to_have_text(shown)


def test_magnifier_shows_what_is_at_the_pointer(alone: Page) -> None:
    open_made(alone, 1)
    alone.get_by_label("Look closer").select_option("Magnifier")
    expect(alone.locator("#closer-note")).to_contain_text("Point at the picture")
    stage = place(alone.locator("#stage"))
    alone.mouse.move(stage["x"] + stage["width"] / 4, stage["y"] + stage["height"] / 2)
    lens = alone.locator(".lens")
    expect(lens).to_be_visible()
    expect(lens).to_have_css("background-size", f"{4 * SIZE[0]}px {4 * SIZE[1]}px")
    radius = lens.evaluate("e => e.offsetWidth / 2")
    left = lens.evaluate("e => parseFloat(getComputedStyle(e).backgroundPositionX)")
    assert left == pytest.approx(radius - SIZE[0], abs=4)
    alone.mouse.move(0, 0)
    expect(lens).to_be_hidden()


def test_two_pictures_are_compared(alone: Page) -> None:
    tall = made_record(1)["image"] | {"width": 300, "height": 520}
    MadeList(alone, [made_record(0), made_record(1, image=tall)])
    alone.reload()
    row(alone, "picture 0.jpg").click()
    alone.get_by_role("button", name="Compare").click()
    row(alone, "picture 1.jpg").click()
    other = alone.get_by_role("group", name="picture 0.jpg")
    expect(other).to_be_visible()
    expect(other.get_by_role("img")).to_have_js_property("naturalWidth", SIZE[0])
    for pane, (width, height) in (
        (other, SIZE),
        (alone.locator("#stage").locator(".."), (300, 520)),
    ):
        stage = place(pane.locator(".stage"))
        assert stage["width"] / stage["height"] == pytest.approx(width / height, rel=0.02)
    alone.get_by_role("button", name="Stop comparing").click()
    expect(other).to_be_hidden()
