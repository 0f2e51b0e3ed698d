"""Loading the page: security policy, service status, model and layout."""

from __future__ import annotations

import gzip
import re

import pytest
from playwright.sync_api import Page, Response, expect

from tests.browser.pages import (
    FACTS,
    NO_PICTURE,
    SLOW,
    Console,
    MadeList,
    answer,
    choose,
    expect_natural_size,
    made_record,
    overlay,
    problem,
    queued_record,
    row,
    rows,
)


def test_loads_without_errors_and_shows_the_model(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    version = page.request.get("/v1/model").json()["version"]
    expect(page.locator("#model-line")).to_contain_text(version)
    expect(page.locator("#detection")).to_be_hidden()
    expect(page.locator("#review")).to_be_hidden()


def test_first_load_is_light(fresh: Page) -> None:
    """At most 60 kB, compressed as most servers do."""
    responses: list[Response] = []
    fresh.on("response", lambda response: responses.append(response))
    fresh.reload(wait_until="networkidle")
    files = {one.url: one.body() for one in responses if "/v1/" not in one.url}
    assert len(files) > 10
    assert sum(len(gzip.compress(body, 6)) for body in files.values()) <= 60_000


def test_what_could_not_be_loaded_is_loaded_later(alone: Page, console: Console) -> None:
    console.provoked += ["ERR_FAILED", "Failed to fetch dynamically imported module"]
    MadeList(alone, [queued_record(0), made_record(1), made_record(2)])
    modules = re.compile(r"/static/(workbench|closer|follow)\.js")
    alone.route(modules, lambda route: route.abort())
    alone.reload()
    with alone.expect_event("requestfailed", lambda request: "closer" in request.url):
        row(alone, "picture 2.jpg").click()
    alone.unroute(modules)
    row(alone, "picture 1.jpg").click()
    expect(alone.get_by_role("region", name="Decision", exact=True)).to_be_visible()
    expect(alone.get_by_label("Look closer")).to_be_enabled()
    with alone.expect_request("**/v1/detections?ids=*"):
        alone.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_policy_stops_foreign_and_inline_code(page: Page, console: Console) -> None:
    console.provoked.append("CSP script-src")
    console.provoked.append("Content Security Policy")
    with page.expect_console_message(lambda message: "CSP script-src" in message.text):
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'),"
            " {textContent: 'document.body.dataset.ran = 1'}))"
        )
    assert page.locator("body").get_attribute("data-ran") is None


def test_says_that_no_worker_is_ready_until_one_is(alone: Page, console: Console) -> None:
    console.provoked.append("503")
    refusal = answer(problem("No worker is ready", "no_worker"), 503, retry_after=1)
    alone.route("**/v1/model", refusal)
    alone.reload()
    expect(alone.locator("#notice")).to_contain_text("No worker is ready")
    expect(alone.locator("#notice")).to_contain_text("they wait in the queue")
    alone.unroute("**/v1/model")
    alone.route("**/v1/model", answer(FACTS))
    expect(alone.locator("#notice")).to_be_hidden()
    expect(alone.locator("#model-line")).to_contain_text("2026.1")


def test_notice_of_a_model_comes_first(alone: Page) -> None:
    notice = "Its scores mean nothing."
    alone.route("**/v1/model", answer(FACTS | {"trained": False, "notice": notice}))
    alone.reload()
    expect(alone.locator("#notice")).to_have_text("Untrained model Its scores mean nothing.")


@pytest.mark.parametrize("width", [320, 375, 768, 3840])
def test_nothing_scrolls_sideways(page: Page, console: Console, width: int) -> None:
    console.provoked.append("415")
    page.set_viewport_size({"width": width, "height": 800})

    def expect_fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    expect_fits()
    long_name = "a-very-long-name-without-any-space-" * 4 + ".png"
    MadeList(page, [made_record(4), made_record(8, ref_id=long_name)])
    page.reload()
    expect(rows(page)).to_have_count(2)
    expect_fits()
    row(page, long_name).click()
    expect_natural_size(overlay(page, "ai"), (640, 400))
    expect_fits()
    page.locator("#tools").get_by_text("Side by side").click()
    page.get_by_role("button", name="Zoom in").click()
    expect_fits()
    page.keyboard.press("c")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect_fits()
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": max(width, 1000), "height": 800})  # where files are chosen
    choose(page, NO_PICTURE)
    page.set_viewport_size({"width": width, "height": 800})
    expect(page.locator("#problem")).to_be_visible()
    expect_fits()


def test_narrow_page_shows_the_list_or_the_picture(alone: Page) -> None:
    alone.set_viewport_size({"width": 375, "height": 700})
    MadeList(alone, [made_record(4)])
    alone.reload()
    row(alone, "picture 4.jpg").click()
    expect(alone.locator("#review")).to_be_hidden()
    expect(alone.get_by_role("heading", name="picture 4.jpg")).to_be_in_viewport()
    alone.get_by_role("button", name="Back to the list").click()
    expect(row(alone, "picture 4.jpg")).to_be_visible()
    expect(alone.locator("#detection")).to_be_hidden()
    row(alone, "picture 4.jpg").click()
    alone.go_back()
    expect(row(alone, "picture 4.jpg")).to_be_visible()


def test_documentation_shows_the_operations(page: Page) -> None:
    page.goto("/docs")
    operations = page.locator(".opblock")
    expect(operations.first).to_be_visible(timeout=SLOW)
    document = page.request.get("/openapi.json").json()
    described = [*document["paths"].values(), *document["webhooks"].values()]
    expect(operations).to_have_count(sum(len(methods) for methods in described))
    operations.first.locator(".opblock-summary-control").click()
    expect(page.locator(".opblock-body").first).to_be_visible()
    page.get_by_role("button", name="Try it out").click()
    expect(page.get_by_role("button", name="Execute")).to_be_visible()
