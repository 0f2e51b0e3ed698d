"""Decisions, notes and history, with a stand-in for the service."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.pages import (
    SIZE,
    Console,
    MadeList,
    answer,
    choose,
    expect_held,
    expect_names,
    expect_natural_size,
    file,
    made_record,
    overlay,
    problem,
    row,
    rows,
)
from tests.browser.reviews import MadeReviews


@pytest.fixture
def page(alone: Page) -> Page:
    return alone


def opened(page: Page, count: int = 3) -> MadeReviews:
    """Show so many pictures, the newest of them open."""
    made = MadeList(page, [made_record(number) for number in range(count)])
    page.reload()
    expect(rows(page)).to_have_count(count)
    row(page, f"picture {count - 1}.jpg").click()
    expect(panel(page)).to_contain_text("No decision yet")
    return made.reviews


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Decision", exact=True)


def saved(page: Page) -> None:
    expect(page.locator("#saving")).to_be_empty()


def pick_decision(page: Page, label: str) -> None:
    page.get_by_label("Filter by decision").select_option(label=label)


def title(page: Page) -> Locator:
    return page.locator("#detection-title")


def identity(number: int) -> str:
    return f"{number:032x}"


@pytest.mark.timeout(600)
def test_four_hundred_pictures_are_reviewed_with_the_keyboard_alone(page: Page) -> None:
    count, opinions = 400, ["genuine", "ai", "manipulated", "unsure"]
    made = MadeList(page, [made_record(number) for number in range(count)])
    page.reload()
    expect(rows(page)).to_have_count(count)
    rows(page).first.focus()
    page.keyboard.press("Enter")
    expect(panel(page)).to_contain_text("No decision yet")
    for key in "1234" * (count // 4):
        page.keyboard.press(key)
    saved(page)
    pick_decision(page, "Undecided")
    expect(page.locator("#no-rows")).to_be_visible()
    expected = {identity(count - 1 - place): opinions[place % 4] for place in range(count)}
    assert made.reviews.decisions() == expected
    assert all(len(entries) == 1 for entries in made.reviews.history.values())


def test_picture_keeps_its_place_until_the_tools_have_their_style(page: Page) -> None:
    held: list[Route] = []
    page.route("**/decide.css", lambda route: held.append(route))
    MadeList(page, [made_record(0)])
    page.reload()
    rows(page).click()
    expect_natural_size(overlay(page, "ai"), SIZE)
    expect_held(page, held, 1)
    expect(page.locator("#decide")).to_be_hidden()
    expect(page.locator("#team")).to_be_empty()
    held[0].continue_()
    expect(page.locator("#decide")).to_have_css("display", "flex")


def test_tools_work_without_their_style(page: Page, console: Console) -> None:
    console.provoked.append("ERR_FAILED")
    page.route("**/decide.css", lambda route: route.abort())
    made = opened(page)
    page.keyboard.press("1")
    expect(title(page)).to_have_text("picture 1.jpg")
    saved(page)
    assert made.decisions() == {identity(2): "genuine"}


def test_note_and_name_are_sent_and_remembered(page: Page) -> None:
    made = opened(page)
    page.keyboard.press("t")
    page.get_by_label("Note, sent with the decision").fill("Six <b>fingers</b>.")
    page.get_by_label("Your name").fill("Anna")
    page.keyboard.press("Escape")
    expect(panel(page)).to_contain_text("The note is sent when you decide.")
    page.keyboard.press("2")
    expect(title(page)).to_have_text("picture 1.jpg")
    saved(page)
    entry = made.history[identity(2)][0]
    assert (entry["decision"], entry["note"], entry["reviewer"]) == (
        "ai",
        "Six <b>fingers</b>.",
        "Anna",
    )
    page.reload()
    expect(row(page, "picture 2.jpg")).to_contain_text("✓ AI")
    row(page, "picture 2.jpg").click()
    history = page.locator(".history li")
    expect(history).to_have_text(re.compile(r"Anna \(own\): AI-generated: “Six <b>fing.*\.”$"))
    expect(page.get_by_label("Your name")).to_have_value("Anna")
    expect(panel(page).get_by_role("button", name="AI-generated")).to_have_attribute(
        "aria-pressed", "true"
    )


def test_history_of_the_open_picture_grows_with_each_decision(page: Page) -> None:
    opened(page, 1)
    page.keyboard.press("1")
    expect(page.locator(".history li")).to_have_text([re.compile("Genuine")])
    page.keyboard.press("2")
    expect(page.locator(".history li")).to_have_text(
        [re.compile("AI-generated"), re.compile("Genuine")]
    )


@pytest.mark.parametrize("key", ["1", "Enter"])
def test_a_key_that_is_held_decides_once(page: Page, key: str) -> None:
    made = opened(page, 5)
    panel(page).get_by_role("button", name="Genuine").focus()
    for held in (key, "j"):  # which goes on
        for _ in range(3):
            page.keyboard.down(held)
        page.keyboard.up(held)
    expect(title(page)).to_have_text("picture 0.jpg")
    saved(page)
    assert made.decisions() == {identity(4): "genuine"}


def test_number_pad_decides_with_num_lock_only(page: Page) -> None:
    """Without it, its keys scroll."""
    made = opened(page)
    panel(page).get_by_role("button", name="Genuine").focus()
    page.keyboard.press("Numpad2")  # the arrow down
    page.keyboard.press("Shift+Numpad3")  # the digit, as with Num Lock
    expect(title(page)).to_have_text("picture 1.jpg")
    saved(page)
    assert made.decisions() == {identity(2): "manipulated"}


def test_undo_returns_to_the_last_decision_and_withdraws_it(page: Page) -> None:
    made = opened(page)
    page.keyboard.press("1")
    expect(title(page)).to_have_text("picture 1.jpg")
    page.keyboard.press("u")
    expect(title(page)).to_have_text("picture 2.jpg")
    saved(page)
    expect(panel(page)).to_contain_text("No decision yet")
    assert [one["decision"] for one in made.history[identity(2)]] == ["withdrawn", "genuine"]


def test_undo_passes_over_a_picture_that_was_removed(page: Page) -> None:
    made = opened(page)
    page.keyboard.press("1")
    page.keyboard.press("2")
    saved(page)
    page.evaluate(f"new BroadcastChannel('gamma-deletions').postMessage('{identity(1)}')")
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("u")
    expect(title(page)).to_have_text("picture 2.jpg")
    page.keyboard.press("u")
    saved(page)
    assert made.decisions() == {identity(1): "ai"}


def test_a_file_that_is_sent_again_is_undecided(page: Page, console: Console) -> None:
    """Also where the decision about the former detection is in conflict with a colleague's."""
    console.provoked.append("412")
    made = MadeList(page, [])
    page.reload()

    def accept(route: Route) -> None:
        record = made_record(len(made.records))
        made.records[record["id"]] = record
        route.fulfill(status=201, json=record)

    page.route("**/v1/detections", accept)
    choose(page, file())
    expect(panel(page)).to_contain_text("No decision yet")
    page.keyboard.press("1")
    saved(page)
    expect(page.locator(".history li")).to_have_count(1)
    made.reviews.append(identity(0), "ai", reviewer="Ben")
    page.keyboard.press("3")
    expect(page.locator("#unsaved")).to_contain_text("1 decision in conflict")
    page.evaluate(f"new BroadcastChannel('gamma-deletions').postMessage('{identity(0)}')")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#permalink")).to_have_attribute("href", f"#/{identity(1)}")
    expect(panel(page)).to_contain_text("No decision yet")
    expect(page.locator(".history li")).to_have_count(0)
    expect(page.locator("#unsaved")).to_be_hidden()
    saved(page)


def test_filter_by_decision(page: Page) -> None:
    opened(page)
    page.keyboard.press("1")
    page.keyboard.press("2")
    saved(page)
    pick_decision(page, "Decided: AI-generated")
    expect_names(page, ["picture 1.jpg"])
    pick_decision(page, "Undecided")
    expect_names(page, ["picture 0.jpg"])


def test_next_goes_on_from_a_picture_that_has_left_the_list(page: Page) -> None:
    """Because a colleague decided about it."""
    made = opened(page, 5)
    row(page, "picture 2.jpg").click()
    pick_decision(page, "Undecided")
    made.append(identity(2), "ai", reviewer="Ben", key="ben")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(rows(page)).to_have_count(4)
    page.keyboard.press("j")
    expect(title(page)).to_have_text("picture 1.jpg")


def test_focus_stays_in_the_list_when_the_decided_row_leaves_it(page: Page) -> None:
    opened(page)
    pick_decision(page, "Undecided")
    row(page, "picture 2.jpg").focus()
    page.keyboard.press("1")
    expect(rows(page)).to_have_count(2)
    expect(row(page, "picture 1.jpg")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(title(page)).to_have_text("picture 0.jpg")


def decide_offline(
    page: Page, fail: Callable[[Route], None] = lambda route: route.abort()
) -> Locator:
    """Decide about two pictures while no decision is taken; returns the notice."""
    page.route("**/review", fail)
    page.keyboard.press("1")
    page.keyboard.press("2")
    notice = page.locator("#unsaved")
    expect(notice).to_contain_text("2 decisions not saved yet")
    return notice


def test_decisions_wait_for_the_network_and_survive_a_reload(fresh: Page, console: Console) -> None:
    console.provoked.append("503")
    made = opened(fresh)
    busy = problem("Too much at once", "rate_limited")
    notice = decide_offline(fresh, answer(busy, 503, retry_after=3600))  # no retry before the click
    expect(row(fresh, "picture 2.jpg")).to_contain_text("genuine…")
    fresh.on("dialog", lambda dialog: dialog.accept())  # the page warns before it is left
    fresh.reload()
    expect(notice).to_contain_text("2 decisions not saved yet")
    fresh.unroute("**/review")
    notice.get_by_role("button", name="Try now").click()
    expect(notice).to_be_hidden()
    saved(fresh)
    assert made.decisions() == {identity(2): "genuine", identity(1): "ai"}


def test_a_conflict_does_not_hold_up_other_decisions(fresh: Page, console: Console) -> None:
    """After an outage in which a colleague decided about one of the pictures."""
    console.provoked += ["ERR_", "412"]
    fresh.clock.install()
    made = opened(fresh)
    notice = decide_offline(fresh)
    made.append(identity(2), "unsure", reviewer="Ben")
    fresh.unroute("**/review")
    fresh.clock.run_for(5000)
    expect(notice).to_have_text(re.compile(r"^1\sdecision in conflict"))
    saved(fresh)
    assert made.decisions() == {identity(2): "unsure", identity(1): "ai"}


@pytest.mark.parametrize("insist", [True, False])
def test_colleague_who_was_faster_is_not_overruled_unasked(
    page: Page, console: Console, insist: bool
) -> None:
    console.provoked.append("412")
    made = opened(page)
    made.append(identity(2), "genuine", "it is mine", reviewer="Ben", key="ben")
    page.keyboard.press("2")
    expect(title(page)).to_have_text("picture 1.jpg")
    page.locator("#unsaved").get_by_role("button", name="Show").click()
    expect(panel(page)).to_contain_text(
        "Ben (ben) decided meanwhile: Genuine: “it is mine”. "
        "Your decision, AI-generated, is not saved."
    )
    assert made.decisions() == {identity(2): "genuine"}
    panel(page).get_by_role("button", name="Use mine" if insist else "Keep theirs").click()
    saved(page)
    expect(page.locator("#unsaved")).to_be_hidden()
    assert made.decisions() == {identity(2): "ai" if insist else "genuine"}


def test_own_key_is_remembered_and_works_in_other_scripts(page: Page) -> None:
    made = opened(page)
    page.keyboard.press("?")
    field = page.get_by_label("Key for: Decide: AI-generated")
    field.press("z")
    expect(page.locator("#help-note")).to_have_text("Z is taken: Actual size or fit.")
    field.press("w")
    expect(field).to_have_value("W")
    page.reload()
    expect(panel(page)).to_contain_text("No decision yet")
    expect(panel(page).get_by_role("button", name="AI-generated")).to_have_text("AI-generatedW")
    page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'ц', code: 'KeyW', bubbles: true}))"
    )
    saved(page)
    assert made.decisions() == {identity(2): "ai"}


def test_selection_gets_one_decision_and_is_exported(page: Page, tmp_path: Path) -> None:
    made = MadeList(page, [made_record(n, ref_id=f"=picture, {n}") for n in range(6)])
    page.reload()
    bar = page.locator("#team")
    expect(bar.get_by_role("button", name="Queue")).to_be_visible()
    row(page, "=picture, 5").click(modifiers=["ControlOrMeta"])
    row(page, "=picture, 3").click(modifiers=["Shift"])
    row(page, "=picture, 0").click(modifiers=["ControlOrMeta"])
    expect(bar).to_contain_text("4 selected")
    bar.get_by_text("Export").click()
    with page.expect_download() as downloading:
        bar.get_by_role("button", name="CSV").click()
    downloading.value.save_as(tmp_path / "x.csv")
    with open(tmp_path / "x.csv", encoding="utf-8-sig", newline="") as file:
        assert [one["name"] for one in csv.DictReader(file)] == [
            f"'=picture, {n}" for n in (5, 4, 3, 0)
        ]
    bar.get_by_role("button", name="Unsure").click()
    saved(page)
    assert made.reviews.decisions() == {identity(n): "unsure" for n in (5, 4, 3, 0)}
    pick_decision(page, "Undecided")
    with page.expect_download() as downloading:
        bar.get_by_role("button", name="JSON").click()
    downloading.value.save_as(tmp_path / "x.json")
    exported = json.loads((tmp_path / "x.json").read_text())
    assert [one["detection"]["id"] for one in exported] == [identity(2), identity(1)]


def test_queue_hands_out_what_nobody_else_has_open(page: Page) -> None:
    made = opened(page, 4)
    made.assign(identity(0), "ben")
    queue = page.get_by_role("button", name="Queue")
    queue.click()
    expect(title(page)).to_have_text("picture 1.jpg")
    pick_decision(page, "Assigned to me")
    expect(rows(page)).to_have_count(1)
    pick_decision(page, "Any decision")
    page.keyboard.press("3")
    expect(title(page)).to_have_text("picture 2.jpg")
    page.keyboard.press("3")
    expect(title(page)).to_have_text("picture 3.jpg")
    page.keyboard.press("3")
    expect(page.locator("#team")).to_contain_text("The queue is empty.")
    assert made.decisions() == dict.fromkeys(map(identity, (1, 2, 3)), "manipulated")


def test_queue_that_was_switched_off_opens_nothing(page: Page) -> None:
    """Also if the picture that it hands out is still on its way; that one is given back."""
    made = opened(page)
    asked: list[Route] = []
    page.route("**/v1/reviews/next?**", lambda route: asked.append(route))
    queue = page.get_by_role("button", name="Queue")
    with page.expect_request("**/v1/reviews/next?**"):
        queue.click()
    queue.click()
    expect_held(page, asked, 1)
    with page.expect_request(lambda request: request.method == "DELETE") as released:
        asked[0].fallback()
    assert identity(0) in released.value.url
    expect(queue).to_have_attribute("aria-pressed", "false")
    expect(title(page)).to_have_text("picture 2.jpg")
    assert identity(0) not in made.assigned


def test_the_list_says_what_colleagues_have_open(fresh: Page) -> None:
    fresh.clock.install()
    made = opened(fresh)
    made.assign(identity(1), "ben")
    fresh.clock.run_for(11_000)
    expect(row(fresh, "picture 1.jpg")).to_contain_text("open: ben")
    fresh.keyboard.press("d")
    expect(title(fresh)).to_have_text("picture 0.jpg")
    del made.assigned[identity(1)]
    fresh.clock.run_for(11_000)
    expect(row(fresh, "picture 1.jpg")).not_to_contain_text("open")
    fresh.keyboard.press("d")
    expect(title(fresh)).to_have_text("picture 2.jpg")
    fresh.keyboard.press("d")
    expect(title(fresh)).to_have_text("picture 1.jpg")


def test_an_open_picture_stays_assigned(fresh: Page) -> None:
    """Also where assignments last 10 s, and the clocks of browser and service differ by years."""
    fresh.clock.install()
    made = opened(fresh)
    made.lock = 10
    fresh.keyboard.press("j")
    for _ in range(3):
        with fresh.expect_response(f"**/{identity(1)}/assignment?**"):
            fresh.clock.run_for(6000)
    with fresh.expect_response(lambda response: response.request.method == "DELETE"):
        fresh.keyboard.press("Escape")
    renewals = made.renewals
    fresh.clock.run_for(20_000)
    assert made.renewals == renewals


def test_rows_are_selected_by_touch(phone: Page) -> None:
    made = MadeList(phone, [made_record(number) for number in range(4)])
    phone.reload()
    bar = phone.locator("#team")
    bar.get_by_role("button", name="Select").tap()
    for number in (3, 1):
        row(phone, f"picture {number}.jpg").tap()
    expect(bar).to_contain_text("2 selected")
    row(phone, "picture 3.jpg").tap()
    row(phone, "picture 0.jpg").tap()
    bar.get_by_role("button", name="Unsure").tap()
    saved(phone)
    assert made.reviews.decisions() == dict.fromkeys(map(identity, (1, 0)), "unsure")
    row(phone, "picture 2.jpg").tap()
    expect(title(phone)).to_have_text("picture 2.jpg")


def test_report_is_saved_and_copied_as_text(page: Page, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page)
    page.route("**/report.html", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    page.keyboard.press("2")
    saved(page)
    row(page, "picture 2.jpg").click()
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Report", exact=True).click()
    assert downloading.value.suggested_filename == "picture 2-report.html"
    page.get_by_role("button", name="Copy as text").click()
    expect(page.locator("#action-note")).to_have_text("The text is copied.")
    text = page.evaluate("() => navigator.clipboard.readText()")
    assert "Picture: picture 2.jpg\nAI score: 74.0" in text
    assert "Decision: AI-generated, by own, " in text
