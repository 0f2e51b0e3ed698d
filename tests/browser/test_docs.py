"""The API documentation page."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from app.contract.schemas import ErrorCode
from app.http.problems import STATUS
from tests.browser.pages import SLOW


def test_problem_type_links_to_its_description(page: Page) -> None:
    answer = page.request.get("/v1/detections/none").json()
    assert answer["type"] == "/docs#not_found"
    page.goto(answer["type"])
    status, title = STATUS[ErrorCode.NOT_FOUND]
    term = page.locator("dt#not_found")
    expect(term).to_have_text(f"not_found: {status}, {title}", timeout=SLOW)
    expect(term).to_be_in_viewport()
