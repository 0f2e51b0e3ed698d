"""The page with a service that needs a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.pages import (
    SIZE,
    SMALL_SIZE,
    Console,
    choose,
    expect_natural_size,
    file,
    finished,
    new_context,
    overlay,
    rows,
)
from tests.conftest import Serve

KEY = "a-secret-of-the-first-caller"
OTHER_KEY = "a-secret-of-the-other-caller"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Serve]:
    keys = f"first={KEY},other={OTHER_KEY}"
    running = Serve(
        tmp_path_factory.mktemp("keyed") / "data",
        GAMMA_API_KEYS=keys,
        GAMMA_CHECKPOINT=str(small_model),
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


@pytest.fixture
def context(browser: Browser, keyed: Serve) -> Iterator[BrowserContext]:
    made = new_context(browser, keyed.url)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, console: Console) -> Page:
    console.provoked.extend(["401", "403"])
    page = context.new_page()
    console.listen(page)
    page.goto("/")
    return page


def enter(page: Page, key: str) -> None:
    page.get_by_role("textbox", name="API key").fill(key)
    page.keyboard.press("Enter")


def test_asks_for_the_key_once_and_sends_it_everywhere(page: Page) -> None:
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("needs an API key")
    enter(page, "not the key of anyone")
    expect(dialog).to_contain_text("does not accept this key")
    enter(page, KEY)
    expect(dialog).to_be_hidden()
    choose(page, file())
    finished(page)
    expect_natural_size(overlay(page, "ai"), SIZE)
    expect_natural_size(rows(page).first.locator("img"), (256, 160))
    page.reload()
    finished(page)
    expect(dialog).to_be_hidden()
    expect_natural_size(overlay(page, "manipulation"), SIZE)
    expect_natural_size(page.locator("#picture"), SIZE)
    kept = "JSON.stringify([sessionStorage, localStorage, document.cookie])"
    assert page.evaluate(kept) == f'[{{"gamma-api-key":"{KEY}"}},{{}},""]'


def test_forgetting_the_key_removes_everything(page: Page) -> None:
    enter(page, KEY)
    choose(page, file(SMALL_SIZE))
    finished(page, SMALL_SIZE)
    page.get_by_role("button", name="Forget key").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("needs an API key")
    expect(rows(page)).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0
    enter(page, OTHER_KEY)
    expect(dialog).to_be_hidden()
    expect(page.locator("#model-line")).not_to_be_empty()
    expect(rows(page)).to_have_count(0)


def test_permalink_needs_the_key_of_the_owner(page: Page, console: Console) -> None:
    enter(page, KEY)
    choose(page, file(SMALL_SIZE))
    finished(page, SMALL_SIZE)
    for key, opens in ((OTHER_KEY, False), (KEY, True)):
        tab = page.context.new_page()
        console.listen(tab)
        tab.goto(page.url)
        enter(tab, key)
        if opens:
            finished(tab, SMALL_SIZE)
        else:
            expect(tab.locator("#problem")).to_contain_text("it belongs to another API key")


def test_pictures_wait_for_a_key_that_is_given_later(page: Page) -> None:
    page.get_by_role("button", name="Not now").click()
    choose(page, file(SMALL_SIZE))
    held = page.locator("#paused")
    expect(held).to_contain_text("1 picture waits in this tab")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(rows(page)).to_contain_text("Waiting for a key")
    wanted = "This service needs an API key."
    expect(page.locator("#trouble")).to_have_text(f"{wanted} Enter one to continue.")
    held.get_by_role("button", name="Enter key").click()
    enter(page, "not the key of anyone")
    expect(page.get_by_role("dialog")).to_contain_text("does not accept this key")
    page.keyboard.press("Escape")
    expect(page.locator("#trouble")).to_have_text(f"{wanted} Enter one to continue.")
    held.get_by_role("button", name="Enter key").click()
    enter(page, KEY)
    finished(page, SMALL_SIZE)
    expect(held).to_be_hidden()
