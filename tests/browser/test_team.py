"""Two people of a team who decide at the same time, with a real service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.pages import new_context, rows
from tests.conftest import Serve, encode, photo

PICTURES = 12
KEYS = {"anna": "a-secret-of-anna-for-tests", "ben": "a-secret-of-ben-for-tests"}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Serve]:
    running = Serve(
        tmp_path_factory.mktemp("team") / "data",
        GAMMA_API_KEYS=",".join(f"{name}@desk={key}" for name, key in KEYS.items()),
        GAMMA_CHECKPOINT=str(small_model),
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


def sign_in(browser: Browser, service: Serve, name: str) -> Page:
    context = new_context(browser, service.url)
    context.add_init_script(f"sessionStorage.setItem('gamma-api-key', '{KEYS[name]}')")
    page = context.new_page()
    page.goto("/")
    expect(rows(page)).to_have_count(PICTURES)
    expect(page.get_by_role("button", name="Queue")).to_be_visible()
    return page


def test_no_decision_is_lost_or_doubled(browser: Browser, team: Serve) -> None:
    with team.client() as client:
        client.headers["Authorization"] = f"Bearer {KEYS['anna']}"
        for seed in range(PICTURES):
            picture = encode(photo(160, 160, seed), "PNG")
            answer = client.post(
                "/v1/detections", files={"file": picture}, headers={"Prefer": "wait=30"}
            )
            assert answer.json()["status"] == "succeeded", answer.text
        people = [sign_in(browser, team, name) for name in KEYS]
        for page in people:
            page.get_by_role("button", name="Queue").click()
        titles = [page.locator("#detection-title") for page in people]
        for title in titles:
            expect(title).to_be_visible()
        assert titles[0].text_content() != titles[1].text_content(), "one picture for each"
        for turn in range(PICTURES):
            page = people[turn % 2]
            if page.locator("#team").get_by_text("The queue is empty.").is_visible():
                continue
            before = page.url
            page.keyboard.press(str(turn % 4 + 1))
            if turn < PICTURES - 2:
                expect(page).not_to_have_url(before)
        for page in people:
            expect(page.locator("#team")).to_contain_text("The queue is empty.")
            expect(page.locator("#saving")).to_be_empty()
        entries = client.get("/v1/reviews", params={"history": True, "limit": 100}).json()
        decided = Counter(entry["detection_id"] for entry in entries["reviews"])
        assert len(decided) == PICTURES
        assert set(decided.values()) == {1}
        assert Counter(entry["key"] for entry in entries["reviews"]) == {"anna": 6, "ben": 6}
        for page in people:
            page.context.close()
