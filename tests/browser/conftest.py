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
from tests.browser.pages import FACTS, TIMEOUT, Console, MadeList, new_context
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
def alone(browser: Browser, page_files: str, console: Console) -> Iterator[Page]:
    """The page without a service: all answers are made by the test, at first an empty list."""
    yield from _alone(new_context(browser, page_files), console)


@pytest.fixture
def phone(browser: Browser, page_files: str, console: Console) -> Iterator[Page]:
    """As `alone`, on a touch screen."""
    size: ViewportSize = {"width": 375, "height": 812}
    yield from _alone(new_context(browser, page_files, size, has_touch=True), console)


def _alone(context: BrowserContext, console: Console) -> Iterator[Page]:
    page = context.new_page()
    console.listen(page)
    page.route("**/v1/model", lambda route: route.fulfill(json=FACTS))
    page.route("**/livez", lambda route: route.fulfill(status=204))
    MadeList(page, [])
    page.goto("/")
    yield page
    context.close()
