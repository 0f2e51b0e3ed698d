"""Chromium, and a service with an empty list at the start of each test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

from app.http.middleware import RequestMiddleware
from app.http.routes import page as page_routes
from tests.browser.pages import FACTS, TIMEOUT, Console, MadeList, make_new, new_context, unload
from tests.conftest import Serve, require_program
from tests.ports import free_port

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
    executable = require_program("chromium-headless-shell", "chromium")
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


@pytest.fixture(scope="module")
def tab(browser: Browser, service: Serve) -> Iterator[Page]:
    """A tab that the tests of a file share: a new one takes two seconds of computing."""
    yield from _tab(browser, service.url)


@pytest.fixture(scope="module")
def lone_tab(browser: Browser, page_files: str) -> Iterator[Page]:
    """As `tab`, without a service."""
    yield from _tab(browser, page_files)


def _tab(browser: Browser, url: str) -> Iterator[Page]:
    context = new_context(browser, url)
    page = context.new_page()
    unload(page)
    yield page
    context.close()


def _lent(page: Page, console: Console) -> Iterator[Page]:
    console.listen(page)
    yield page
    console.leave(page)
    make_new(page)


@pytest.fixture
def page(tab: Page, empty_list: None, console: Console) -> Iterator[Page]:
    """The page with an empty list. Tests may not install a clock, for it would stay."""
    for lent in _lent(tab, console):
        lent.reload()
        yield lent


@pytest.fixture(scope="session")
def page_files() -> Iterator[str]:
    """Address of the page's files, served by this process, without a service behind them."""
    api = FastAPI(openapi_url=None)
    api.include_router(page_routes.router)
    page_routes.mount_static(api)
    port = free_port()
    config = uvicorn.Config(RequestMiddleware(api), port=port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    running = threading.Thread(target=server.run, daemon=True)
    running.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    running.join()


@pytest.fixture
def alone(lone_tab: Page, console: Console) -> Iterator[Page]:
    """A tab at the page's address, where all answers are made by the test, at first an empty list.

    The test loads the page with `reload`. It may not install a clock, for that would stay.
    """
    for lent in _lent(lone_tab, console):
        _answer(lent)
        yield lent


@pytest.fixture
def fresh(browser: Browser, page_files: str, console: Console) -> Iterator[Page]:
    """As `alone`, in a browser context of its own: for what `make_new` does not undo."""
    yield from _fresh(new_context(browser, page_files), console)


@pytest.fixture
def phone(browser: Browser, page_files: str, console: Console) -> Iterator[Page]:
    """As `fresh`, on a touch screen."""
    size: ViewportSize = {"width": 375, "height": 812}
    yield from _fresh(new_context(browser, page_files, size, has_touch=True), console)


def _fresh(context: BrowserContext, console: Console) -> Iterator[Page]:
    page = context.new_page()
    unload(page)
    console.listen(page)
    _answer(page)
    yield page
    context.close()


def _answer(page: Page) -> None:
    page.route("**/v1/model", lambda route: route.fulfill(json=FACTS))
    page.route("**/livez", lambda route: route.fulfill(status=204))
    MadeList(page, [])
