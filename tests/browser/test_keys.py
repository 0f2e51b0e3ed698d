"""The page with a service that needs a key: of one person, and of a team."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from redis import Redis

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.schemas import Head
from tests.app.conftest import MEMORY, StandIn
from tests.app.replica import Replica, replicas
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
from tests.conftest import encode, photo

KEY = "a-secret-of-the-first-caller"
OTHER_KEY = "a-secret-of-the-other-caller"
TEAM = {"anna": "a-secret-of-anna-for-tests", "ben": "a-secret-of-ben-for-tests"}
KEYS = {"first": KEY, "other": OTHER_KEY} | {f"{name}@desk": key for name, key in TEAM.items()}
PICTURES = 12  # of the team


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A real API and a fake worker, which knows as little of keys as the real one."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = ",".join(f"{name}={secret}" for name, secret in KEYS.items())
    with (
        private_redis(folder / "redis", MEMORY) as (url, _),
        replicas(url, folder, 1, GAMMA_API_KEYS=keys) as (running,),
        connect(url) as redis,
        working(redis),
    ):
        yield running


class Worker(StandIn):
    """A fake worker whose masks are as large as the pictures."""

    MASKS: ClassVar = {head: encode(photo(*SIZE).convert("L"), "PNG") for head in Head}


@contextmanager
def working(redis: Redis) -> Iterator[None]:
    """Finish every detection."""
    worker = Worker(redis)
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            for name in worker.queued():
                worker.finish(name)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def context(browser: Browser, keyed: Replica) -> Iterator[BrowserContext]:
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


def sign_in(browser: Browser, service: Replica, name: str) -> Page:
    context = new_context(browser, service.url)
    context.add_init_script(f"sessionStorage.setItem('gamma-api-key', '{TEAM[name]}')")
    page = context.new_page()
    page.goto("/")
    expect(rows(page)).to_have_count(PICTURES)
    expect(page.get_by_role("button", name="Queue")).to_be_visible()
    return page


def test_no_decision_is_lost_or_doubled(browser: Browser, keyed: Replica) -> None:
    """Two people of a team decide at the same time."""
    with keyed.client(TEAM["anna"]) as client:
        for seed in range(PICTURES):
            picture = encode(photo(160, 160, seed), "PNG")
            answer = client.post(
                "/v1/detections", files={"file": picture}, headers={"Prefer": "wait=30"}
            )
            assert answer.json()["status"] == "succeeded", answer.text
        people = [sign_in(browser, keyed, name) for name in TEAM]
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
