"""Navigation between list and picture: scroll position, focus, keys and history."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.pages import OLDEST_FIRST, MadeList, expect_names, made_record, row, rows

MANY = 120  # more than one page of the service's list


@pytest.fixture
def page(alone: Page) -> Page:
    return alone


def title(page: Page) -> Locator:
    return page.locator("#detection-title")


def listed(page: Page, count: int = MANY) -> MadeList:
    made = MadeList(page, [made_record(number) for number in range(count)])
    page.evaluate(OLDEST_FIRST)
    page.reload()
    expect(rows(page)).to_have_count(count)
    expect(page.get_by_role("button", name="Queue")).to_be_visible()  # which comes later
    return made


def narrow(page: Page) -> None:
    page.set_viewport_size({"width": 375, "height": 700})


def leave(page: Page, how: str) -> None:
    if how == "button":
        page.get_by_role("button", name="Back to the list").click()
    else:
        page.go_back()


def test_reload_keeps_the_place_of_the_open_picture(page: Page) -> None:
    listed(page)
    row(page, "picture 60.jpg").click()
    page.reload()
    expect_names(page, [f"picture {n}.jpg" for n in range(MANY)])
    expect(title(page)).to_have_text("picture 60.jpg")
    expect(row(page, "picture 60.jpg")).to_be_in_viewport()
    page.get_by_role("button", name="Next").click()
    expect(title(page)).to_have_text("picture 61.jpg")


def test_list_that_was_scrolled_away_from_the_open_picture_stays(page: Page) -> None:
    made = listed(page)
    rows(page).first.click()
    row(page, "picture 80.jpg").scroll_into_view_if_needed()
    made.records[f"{MANY:032x}"] = made_record(MANY)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(rows(page)).to_have_count(MANY + 1)
    expect(row(page, "picture 80.jpg")).to_be_in_viewport()


@pytest.mark.parametrize("how", ["button", "history"])
def test_back_on_a_narrow_page_keeps_place_and_focus(page: Page, how: str) -> None:
    narrow(page)
    listed(page)
    row(page, "picture 60.jpg").scroll_into_view_if_needed()
    page.evaluate("addEventListener('click', () => { globalThis.left = scrollY }, true)")
    row(page, "picture 60.jpg").click()  # may scroll first
    expect(title(page)).to_be_focused()
    assert page.evaluate("left") > 1000
    assert page.evaluate("scrollY") == 0
    before = page.evaluate("left")
    leave(page, how)
    expect(row(page, "picture 60.jpg")).to_be_focused()
    page.wait_for_function("before => scrollY === before", arg=before)


@pytest.mark.parametrize("how", ["button", "history"])
def test_back_after_other_pictures_shows_the_last_of_them(page: Page, how: str) -> None:
    narrow(page)
    listed(page)
    rows(page).first.click()
    for number in range(1, 31):
        page.get_by_role("button", name="Next").click()
        expect(title(page)).to_have_text(f"picture {number}.jpg")
    leave(page, how)
    expect(row(page, "picture 30.jpg")).to_be_focused()
    expect(row(page, "picture 30.jpg")).to_be_in_viewport()


@pytest.mark.parametrize("key", ["Enter", "Space"])
@pytest.mark.parametrize("width", [375, 1280])
def test_any_row_can_be_opened_with_the_keyboard(page: Page, width: int, key: str) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    listed(page, 5)
    rows(page).first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(rows(page).nth(3)).to_be_focused()
    expect(page.locator("#detection")).to_be_hidden()
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    expect(rows(page).last).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press(key)
    expect(title(page)).to_have_text("picture 3.jpg")
    expect(title(page) if width == 375 else rows(page).nth(3)).to_be_focused()


def test_focus_stays_when_the_last_picture_is_reached(page: Page) -> None:
    listed(page, 2)
    rows(page).first.click()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    expect(title(page)).to_be_focused()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    expect(title(page)).to_be_focused()


def test_title_of_the_page_names_the_open_picture(page: Page) -> None:
    listed(page, 1)
    rows(page).click()
    expect(page).to_have_title("picture 0.jpg · GAMMA")
    page.go_back()
    expect(page).to_have_title("GAMMA · were these pictures made by AI?")


def test_escape_closes_the_picture(alone: Page) -> None:
    """After it was magnified, it first shows the whole of it; shortcuts may be off."""
    alone.evaluate("localStorage.setItem('gamma-shortcuts-off', 'true')")
    listed(alone, 1)
    rows(alone).click()
    expect(alone.locator("#stage")).to_be_visible()
    alone.locator("#stage").dblclick()
    expect(alone.locator("#zoom-value")).not_to_have_text("Fit")
    alone.keyboard.press("Escape")
    expect(alone.locator("#zoom-value")).to_have_text("Fit")
    alone.keyboard.press("Escape")
    expect(alone.locator("#detection")).to_be_hidden()
    expect(rows(alone)).to_be_focused()


@pytest.mark.parametrize("allowed", [True, False])
def test_link_is_copied(page: Page, allowed: bool) -> None:
    permissions = ["clipboard-read", "clipboard-write"] if allowed else []
    page.context.grant_permissions(permissions)
    listed(page, 1)
    rows(page).click()
    if not allowed:
        page.evaluate(
            "() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }"
        )
    page.get_by_role("link", name="Link to this detection").click()
    if allowed:
        expect(page.locator("#action-note")).to_have_text("The link is copied.")
        assert page.evaluate("navigator.clipboard.readText()") == page.url
    else:
        expect(page.locator("#action-note")).to_contain_text("could not be copied")
