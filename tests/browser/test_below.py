"""The page behind a proxy that removes a path prefix."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.pages import (
    SLOW,
    choose,
    expect_natural_size,
    file,
    finished,
    new_context,
    overlay,
    row,
)
from tests.conftest import Serve

BELOW = "/tools/gamma"
SIZE = (96, 64)
_OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Proxy(ThreadingHTTPServer):
    """Proxy that serves paths below `BELOW` only."""

    daemon_threads = True

    def __init__(self, origin: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.origin = urlsplit(origin).netloc
        self.strays: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{BELOW}/"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        if not self.path.startswith(f"{BELOW}/"):
            self.server.strays.append(self.path)
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.removeprefix(BELOW)
        with closing(http.client.HTTPConnection(self.server.origin, timeout=60)) as origin:
            origin.request(self.command, path, body or None, dict(self.headers))
            answer = origin.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        with suppress(ConnectionError):  # the page has been left
            self.end_headers()
            self.wfile.write(content)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(service: Serve) -> Iterator[Proxy]:
    with Proxy(service.url) as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def context(browser: Browser, proxy: Proxy, empty_list: None) -> Iterator[BrowserContext]:
    made = new_context(browser, proxy.url)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, console: object) -> Page:
    page = context.new_page()
    console.listen(page)
    page.goto("./")
    return page


def test_a_picture_is_sent_shown_saved_and_deleted(page: Page, proxy: Proxy) -> None:
    choose(page, file(SIZE, "below.png"))
    finished(page, SIZE)
    expect_natural_size(overlay(page, "ai"), SIZE)
    for label in ("Mask", "Picture with layer", "Original"):
        with page.expect_download() as download:
            page.get_by_role("button", name=label, exact=True).click()
        assert download.value.path().stat().st_size > 0
    page.reload()
    finished(page, SIZE)
    expect(row(page, "below.png").locator("img")).to_have_js_property("naturalWidth", SIZE[0])
    page.get_by_role("button", name="About the model", exact=True).click()
    expect(page.locator("#card-body")).to_contain_text("gamma")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete", exact=True).first.click()
    page.locator("#delete-yes").click()
    expect(row(page, "below.png")).to_have_count(0)
    assert proxy.strays == []


def test_documentation_calls_the_api_below_the_path(page: Page, proxy: Proxy) -> None:
    page.get_by_role("link", name="API").click()
    page.locator("#operations-system-livez").get_by_role("button").first.click(timeout=SLOW)
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".request-url pre")).to_have_text(f"{proxy.url}livez")
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert proxy.strays == []
