"""Links to reverse image searches."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.pages import FACTS, answer, headline, open_made

ADDRESS = "https://news.example/a b.jpg?size=1&crop=2"


def opened(page: Page, allowed: bool = True, **changes: object) -> Locator:
    page.route("**/v1/model", answer(FACTS | {"search_links": allowed}))
    open_made(page, 0, **changes)
    expect(headline(page)).to_be_visible()
    return page.locator("#details")


def test_links_say_that_the_picture_leaves(alone: Page) -> None:
    details = opened(alone)
    expect(details).to_contain_text("The picture then leaves your organisation.")
    for name, address in (
        ("TinEye", "https://tineye.com/"),
        ("Google Lens", "https://lens.google.com/"),
    ):
        link = details.get_by_role("link", name=name)
        expect(link).to_have_attribute("href", address)
        expect(link).to_have_attribute("rel", "noopener noreferrer")
        expect(link).to_have_attribute("target", "_blank")


def test_a_fetched_picture_is_searched_by_its_address(alone: Page) -> None:
    details = opened(alone, ref_id=ADDRESS)
    expect(details).to_contain_text(f"The link sends this address to another company: {ADDRESS}.")
    encoded = "https%3A%2F%2Fnews.example%2Fa%20b.jpg%3Fsize%3D1%26crop%3D2"
    expect(details.get_by_role("link", name="TinEye")).to_have_attribute(
        "href", f"https://tineye.com/search?url={encoded}"
    )


def test_an_address_that_was_cut_is_not_searched(alone: Page) -> None:
    details = opened(alone, ref_id="https://news.example/" + "x" * 179)
    expect(details.get_by_role("link", name="TinEye")).to_have_attribute(
        "href", "https://tineye.com/"
    )


def test_no_links_where_they_are_not_wanted(alone: Page) -> None:
    details = opened(alone, allowed=False)
    expect(details).to_contain_text("Save")
    expect(details.get_by_role("link", name="TinEye")).to_have_count(0)
