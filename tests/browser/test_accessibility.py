"""No axe-core violations, in each state, theme and width."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from tests.browser.pages import (
    NO_PICTURE,
    SIZE,
    Console,
    MadeList,
    answer,
    choose,
    expect_natural_size,
    file,
    made_record,
    open_made,
    overlay,
    problem,
    row,
    rows,
)
from tests.browser.test_card import open_card
from tests.browser.test_frames import FRAMES

_VIOLATIONS = "options => axe.run(options).then(({violations}) => violations)"
_ALL = {"resultTypes": ["violations"]}
_COLOURS = _ALL | {"runOnly": ["color-contrast"]}  # all that a theme changes
_UNKNOWN: dict[str, object] = {"ai_probability": None, "verdict": None, "masks": None}


@pytest.fixture
def page(alone: Page) -> Page:
    return alone


def records() -> list[dict]:
    error = {"code": "image_truncated", "detail": "The file ends within the picture."}
    return [
        made_record(0),
        made_record(1),
        made_record(2),
        made_record(3, status="failed", error=error, **_UNKNOWN),
        made_record(4, status="queued", **_UNKNOWN),
        made_record(5, model={"name": "gamma", "version": "untrained"}),
    ]


def listed(page: Page) -> None:
    MadeList(page, records())
    page.reload()
    expect(rows(page)).to_have_count(len(records()))


def empty(page: Page) -> None:
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def opened(page: Page) -> None:
    listed(page)
    row(page, "picture 0.jpg").click()
    expect_natural_size(overlay(page, "ai"), SIZE)


def with_frames(page: Page) -> None:
    image = made_record(0)["image"] | {"frames": 12}
    open_made(page, 0, image=image, view=made_record(0)["view"] | {"frame": 7}, frames=FRAMES)
    expect(page.locator(".frames li")).to_have_count(3)
    expect(page.get_by_role("link", name="TinEye")).to_be_visible()


def untrained(page: Page) -> None:
    listed(page)
    row(page, "picture 5.jpg").click()
    expect(page.locator(".score .badge")).to_be_visible()


def as_a_blurred_grid(page: Page) -> None:
    opened(page)
    page.get_by_text("Grid", exact=True).click()
    page.get_by_text("Blur", exact=True).click()
    expect(page.get_by_role("button", name="Show the picture")).to_be_visible()


def looking_closer(page: Page) -> None:
    opened(page)
    page.route("**/v1/detections/*/image", lambda route: route.fulfill(body=file()["buffer"]))
    page.get_by_label("Look closer").select_option("Error level")
    expect(page.locator("#closer-image")).to_be_visible()


def comparing(page: Page) -> None:
    opened(page)
    page.get_by_role("button", name="Compare").click()
    row(page, "picture 1.jpg").click()
    expect(page.get_by_role("group", name="picture 0.jpg")).to_be_visible()


def magnified(page: Page) -> None:
    opened(page)
    page.keyboard.press("s")
    page.keyboard.press("+")
    expect(page.get_by_role("group", name="Original")).to_have_attribute("tabindex", "0")


def without_result(page: Page) -> None:
    listed(page)
    row(page, "picture 3.jpg").click()
    expect(page.locator("#problem")).to_be_visible()


def queued(page: Page) -> None:
    listed(page)
    row(page, "picture 4.jpg").click()
    expect(page.locator("#progress")).to_be_visible()


def decided(page: Page) -> None:
    made = MadeList(page, records())
    page.reload()
    row(page, "picture 2.jpg").click()
    expect(page.locator("#decide")).to_contain_text("No decision yet")
    page.keyboard.press("t")
    page.get_by_label("Note, sent with the decision").fill("a note")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    expect(page.locator("#saving")).to_be_empty()
    made.reviews.append(made_record(1)["id"], "genuine", "no", key="ben")
    page.keyboard.press("2")
    page.locator("#unsaved").get_by_role("button", name="Show").click()
    expect(page.get_by_role("button", name="Use mine")).to_be_visible()
    row(page, "picture 0.jpg").click(modifiers=["ControlOrMeta"])
    expect(page.locator("#team")).to_contain_text("1 selected")


def uploading(page: Page) -> None:
    page.route("**/v1/detections", lambda route: None)
    page.reload()
    choose(page, file(), file(), file(), file())
    expect(page.locator("#tally")).to_have_text("0 of 4 done")


def held_up(page: Page) -> None:
    refusal = answer(problem("The queue is full", "queue_full"), 503, retry_after=60)
    page.route("**/v1/detections", refusal)
    page.route("**/v1/model", answer(problem("No worker is ready", "no_worker"), 503))
    page.reload()
    choose(page, file(), NO_PICTURE)
    expect(page.locator("#paused")).to_be_visible()
    expect(page.locator("#notice")).to_be_visible()


def card(page: Page) -> None:
    shown = open_card(page)
    expect(page.locator("#notice")).to_contain_text("Scores are no proof.")
    expect(shown).to_contain_text("By generator")


def keyboard_help(page: Page) -> None:
    page.reload()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def deleting(page: Page) -> None:
    opened(page)
    page.keyboard.press("x")
    expect(page.get_by_role("dialog")).to_be_visible()


def key_wanted(page: Page) -> None:
    page.route("**/v1/**", answer(problem("A key is required", "key_missing"), 401))
    page.reload()
    page.get_by_role("textbox", name="API key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-note")).to_be_visible()


STATES: list[Callable[[Page], None]] = [
    empty,
    listed,
    opened,
    with_frames,
    untrained,
    as_a_blurred_grid,
    looking_closer,
    comparing,
    magnified,
    without_result,
    queued,
    decided,
    uploading,
    held_up,
    card,
    keyboard_help,
    deleting,
    key_wanted,
]


@pytest.mark.parametrize("reach", STATES, ids=lambda reach: reach.__name__)
def test_no_violation(page: Page, console: Console, reach: Callable[[Page], None]) -> None:
    console.provoked.extend(["503", "401", "412"])
    page.emulate_media(reduced_motion="reduce")
    reach(page)
    page.evaluate(AXE_SCRIPT)
    for width, height, scheme, options in (
        (1280, 800, "light", _ALL),
        (1280, 800, "dark", _COLOURS),
        (375, 800, "dark", _ALL),
        (375, 800, "light", _COLOURS),
        (3840, 2160, "light", _ALL),
    ):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(_VIOLATIONS, options) == [], (width, scheme)


@pytest.mark.parametrize("reach", [listed, opened, card], ids=lambda reach: reach.__name__)
def test_targets_are_large_enough_to_be_touched(page: Page, reach: Callable[[Page], None]) -> None:
    page.set_viewport_size({"width": 375, "height": 812})
    reach(page)
    targets = page.locator(
        "nav a, nav button, .heading a, .heading button, .tools button, .choice label,"
        " #filters label, summary"
    )
    small = targets.evaluate_all(
        "all => all.map(e => [e.textContent, e.getBoundingClientRect().height])"
        ".filter(([, height]) => height > 0 && height < 24)"
    )
    assert small == []


def test_nothing_moves_where_that_is_not_wanted(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    queued(page)
    assert page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate("document.getAnimations().length") > 0
