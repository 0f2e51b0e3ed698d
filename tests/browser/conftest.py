"""Chromium, and a service with an empty list at the start of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.pages import TIMEOUT, Console, new_context
from tests.conftest import Serve, require_program

expect.set_options(timeout=TIMEOUT)
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")  # not longer: its event loop would be in the way of other tests
def browser() -> Iterator[Browser]:
    executable = require_program("chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=[*_ARGUMENTS])
        yield launched
        launched.close()


@pytest.fixture
def console() -> Iterator[Console]:
    console = Console()
    yield console
    assert console.unexpected() == []


@pytest.fixture
def empty_list(service: Serve) -> None:
    """Delete the detections of earlier tests, which the page would show."""
    with service.client() as client:
        while found := client.get("/v1/detections", params={"limit": 100}).json()["detections"]:
            for left in found:
                client.delete(f"/v1/detections/{left['id']}")


@pytest.fixture
def context(browser: Browser, service: Serve, empty_list: None) -> Iterator[BrowserContext]:
    made = new_context(browser, service.url)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, console: Console) -> Page:
    page = context.new_page()
    console.listen(page)
    page.goto("/")
    return page
