"""The review list: contents, keyboard and persistence."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.pages import (
    MANY,
    OTHER_SIZE,
    SIZE,
    SLOW,
    SMALL_SIZE,
    Console,
    MadeList,
    answer,
    choose,
    expect_names,
    expect_natural_size,
    fact,
    file,
    finished,
    headline,
    listed,
    made_record,
    names,
    overlay,
    pick_filter,
    places,
    problem,
    record,
    row,
    rows,
)


def test_four_hundred_pictures(alone: Page) -> None:
    """All are listed in pages; thumbnails are loaded for visible rows only."""
    made = listed(alone, MANY)
    expect_names(alone, [f"picture {n}.jpg" for n in range(MANY)])
    expect(alone.locator("#tally")).to_have_text(str(MANY))
    for place in range(6):
        expect_natural_size(rows(alone).nth(place).locator("img"), SIZE)
    assert len(made.thumbnails) < MANY / 4
    rows(alone).first.click()
    alone.keyboard.press("End")
    expect(alone.locator("#detection-title")).to_have_text(f"picture {MANY - 1}.jpg")
    expect(rows(alone).last).to_be_in_viewport()
    expect(rows(alone).last.locator("img")).to_have_js_property("naturalWidth", SIZE[0])
    assert len(made.thumbnails) < 120
    for _ in range(30):
        alone.keyboard.press("k")
    expect(alone.locator("#detection-title")).to_have_text(f"picture {MANY - 31}.jpg")
    expect_natural_size(overlay(alone, "ai"), SIZE)


def test_older_ones_are_listed_on_demand(alone: Page) -> None:
    made = MadeList(alone, [made_record(number) for number in range(530)])
    alone.reload()
    expect(rows(alone)).to_have_count(500)
    expect(alone.locator("#tally")).to_have_text("the newest 500")
    alone.get_by_role("button", name="Show older").click()
    expect(rows(alone)).to_have_count(530)
    expect(alone.locator("#tally")).to_have_text("530")
    expect(alone.get_by_role("button", name="Show older")).to_be_hidden()
    assert len(made.records) == 530


def test_filter_order_and_find(alone: Page) -> None:
    listed(alone, 30)
    records = [made_record(number) for number in range(30)]

    def expected(verdict: str) -> list[str]:
        return [str(made["ref_id"]) for made in records if made["verdict"] == verdict]

    for label, verdict in (
        ("Signs of AI", "ai_generated"),
        ("Uncertain", "uncertain"),
        ("No sign of AI", "authentic"),
    ):
        pick_filter(alone, label)
        expect_names(alone, expected(verdict))
        count = alone.locator("#filters label").filter(has_text=label).locator(".count")
        expect(count).to_have_text(str(len(expected(verdict))))
    pick_filter(alone, "Manipulated")
    expect_names(alone, [f"picture {n}.jpg" for n in range(0, 30, 4)])
    alone.get_by_label("Find by name or id").fill("2.JPG")
    expect_names(alone, ["picture 12.jpg"])
    alone.get_by_label("Find by name or id").fill("nothing like it")
    expect(alone.get_by_text("No pictures match.")).to_be_visible()
    alone.get_by_label("Find by name or id").fill("")
    pick_filter(alone, "All")
    by_score = sorted(records, key=lambda made: -float(str(made["ai_probability"])))
    alone.get_by_label("Order").select_option("Highest AI score first")
    expect_names(alone, [made["ref_id"] for made in by_score])
    alone.get_by_label("Order").select_option("Lowest AI score first")
    expect_names(alone, [made["ref_id"] for made in by_score[::-1]])
    alone.get_by_label("Order").select_option("Newest first")
    expect_names(alone, [made["ref_id"] for made in records[::-1]])
    alone.get_by_label("Order").select_option("Name")
    expect_names(alone, [made["ref_id"] for made in records])


def test_order_filter_and_side_by_side_are_remembered(alone: Page) -> None:
    MadeList(alone, [made_record(n) for n in range(8)])
    alone.reload()
    expect(rows(alone).first).to_contain_text("picture 7.jpg")
    pick_filter(alone, "Manipulated")
    alone.get_by_label("Order").select_option("Oldest first")
    rows(alone).first.click()
    alone.keyboard.press("s")
    alone.reload()
    expect(rows(alone).first).to_contain_text("picture 0.jpg")
    expect_names(alone, ["picture 0.jpg", "picture 4.jpg"])
    expect(alone.get_by_role("group", name="Original")).to_be_visible()


def test_grid_of_thumbnails(alone: Page) -> None:
    """It is remembered, and arrow keys move by lines of it."""
    listed(alone, 30)
    alone.get_by_text("Grid", exact=True).click()
    alone.reload()
    expect(rows(alone)).to_have_count(30)
    boxes = places(alone, ".row")[:12]
    columns = sum(box["y"] == boxes[0]["y"] for box in boxes)
    assert columns > 4
    assert all(box["height"] > box["width"] for box in boxes)
    rows(alone).first.focus()
    alone.keyboard.press("ArrowDown")
    alone.keyboard.press("ArrowRight")
    expect(rows(alone).nth(columns + 1)).to_be_focused()
    alone.keyboard.press("Enter")
    expect(alone.locator("#detection-title")).to_have_text(f"picture {columns + 1}.jpg")
    expect(rows(alone).nth(columns + 1)).to_be_in_viewport()


def test_pictures_are_blurred_until_asked_for(alone: Page) -> None:
    listed(alone, 2)
    alone.get_by_text("Blur", exact=True).click()
    alone.reload()
    expect(rows(alone).first.locator("img")).to_have_css("filter", re.compile("blur"))
    rows(alone).first.click()
    picture = alone.locator("#picture")
    expect(picture).to_have_css("filter", re.compile("blur"))
    alone.get_by_role("button", name="Show the picture").click()
    expect(picture).to_have_css("filter", "none")
    alone.keyboard.press("j")
    expect(alone.locator("#detection-title")).to_have_text("picture 1.jpg")
    expect(picture).to_have_css("filter", re.compile("blur"))
    alone.keyboard.press("v")
    expect(picture).to_have_css("filter", "none")


def test_names_of_any_script_ids_and_times_are_shown(alone: Page) -> None:
    name = "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}.jpg"
    MadeList(alone, [made_record(1, ref_id=name)])
    alone.reload()
    rows(alone).click()
    for shown in (alone.locator("#detection-title"), rows(alone).locator(".name")):
        expect(shown).to_have_css("direction", "rtl")
    expect(fact(alone, "Id")).to_have_text(f"{1:032x}")
    expect(fact(alone, "Uploaded")).to_have_text(re.compile(r"2026, 00:00:01 (UTC|GMT)"))
    expect(fact(alone, "Kept until")).to_have_text(re.compile(r"\d\d:\d\d:\d\d \S+$"))


def test_marks_against_the_score_have_a_filter_of_their_own(alone: Page) -> None:
    notes = ["marks_contradict_score"]
    MadeList(alone, [made_record(0), made_record(1, verdict="authentic", notes=notes)])
    alone.reload()
    pick_filter(alone, "No sign of AI")
    expect_names(alone, ["picture 0.jpg"])
    pick_filter(alone, "Low, but marked")
    expect_names(alone, ["picture 1.jpg"])


def test_keys_go_from_picture_to_picture(alone: Page) -> None:
    listed(alone, 5)
    title = alone.locator("#detection-title")
    alone.keyboard.press("j")
    expect(title).to_have_text("picture 0.jpg")
    expect(rows(alone).first).to_be_focused()
    expect(rows(alone).first).to_have_attribute("aria-selected", "true")
    alone.keyboard.press("j")
    alone.keyboard.press("ArrowDown")
    expect(title).to_have_text("picture 2.jpg")
    expect(alone).to_have_url(f"/#/{2:032x}")
    alone.keyboard.press("k")
    expect(title).to_have_text("picture 1.jpg")
    alone.keyboard.press("End")
    expect(title).to_have_text("picture 4.jpg")
    expect(alone.get_by_role("button", name="Next")).to_be_disabled()
    alone.get_by_role("button", name="Previous").click()
    expect(title).to_have_text("picture 3.jpg")
    expect(rows(alone).and_(alone.locator("[tabindex='0']"))).to_have_count(1)


def test_keys_move_through_the_filtered_list(alone: Page) -> None:
    listed(alone, 9)
    pick_filter(alone, "Manipulated")
    alone.locator("body").press("j")
    alone.keyboard.press("j")
    expect(alone.locator("#detection-title")).to_have_text("picture 4.jpg")


def test_keys_can_be_switched_off_and_leave_fields_alone(alone: Page) -> None:
    listed(alone, 2)
    alone.get_by_label("Find by name or id").press_sequentially("jpg")
    expect(alone.locator("#detection")).to_be_hidden()
    alone.get_by_label("Find by name or id").fill("")
    alone.get_by_role("button", name="Keyboard").click()
    alone.get_by_label("Use single-key shortcuts").uncheck()
    alone.keyboard.press("Escape")
    alone.reload()
    expect(rows(alone)).to_have_count(2)
    alone.keyboard.press("j")
    alone.keyboard.press("?")
    expect(alone.locator("#detection")).to_be_hidden()
    expect(alone.get_by_role("dialog")).to_be_hidden()
    alone.get_by_role("button", name="Keyboard").click()
    alone.get_by_label("Use single-key shortcuts").check()
    alone.keyboard.press("Escape")
    alone.keyboard.press("j")
    expect(alone.locator("#detection-title")).to_have_text("picture 0.jpg")


def test_list_survives_a_reload(page: Page) -> None:
    choose(page, file(SMALL_SIZE, "one.png"), file(OTHER_SIZE, "two.png"))
    expect(page.locator("#tally")).to_have_text("2", timeout=SLOW)
    expect_names(page, ["one.png", "two.png"])
    scores = dict(zip(names(page), page.locator(".row .figure").all_inner_texts(), strict=True))
    newest_first = page.request.get("/v1/detections").json()["detections"]
    page.reload()
    expect(page.get_by_role("heading", name="one.png")).to_be_visible()
    finished(page, SMALL_SIZE)
    expect(rows(page)).to_have_count(2)
    expect_names(page, [made["ref_id"] for made in newest_first])
    expect(page.locator(".row .figure")).to_have_text([scores[n] for n in names(page)])


def test_order_of_arrival_within_a_millisecond(alone: Page) -> None:
    times = [f"2026-01-01T00:00:00.0001{n:02d}Z" for n in range(9)]
    MadeList(alone, [made_record(n, created_at=time) for n, time in enumerate(times)])
    alone.reload()
    expect_names(alone, [f"picture {n}.jpg" for n in reversed(range(9))])


def test_list_that_cannot_be_fetched_says_so(page: Page, console: Console) -> None:
    console.provoked.append("503")
    page.route("**/v1/detections?**", answer(problem("Redis is unavailable", "x"), 503))
    page.reload()
    choose(page, file(SMALL_SIZE))
    note = page.locator("#list-note")
    expect(note).to_have_text("The list may be incomplete. Redis is unavailable.")
    page.unroute("**/v1/detections?**")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(note).to_be_hidden()
    finished(page, SMALL_SIZE)


def test_failed_thumbnail_is_requested_once(alone: Page, console: Console) -> None:
    console.provoked.append("422")
    MadeList(alone, [made_record(1, status="queued", masks=None)])
    tries: list[str] = []

    def refuse(route: Route) -> None:
        tries.append(route.request.url)
        answer(problem("The image is truncated", "image_truncated"), 422)(route)

    alone.route("**/image?**", refuse)
    with alone.expect_response("**/image?**"):
        alone.reload()
    for _ in range(4):
        with alone.expect_request("**/v1/detections?ids=*"):
            pass
    assert len(tries) == 1


def test_permalink_opens_the_detection_again(page: Page, console: Console) -> None:
    choose(page, file())
    finished(page)
    score = headline(page).locator(".number").inner_text()
    link = page.get_by_role("link", name="Link to this detection").get_attribute("href")
    again = page.context.new_page()
    console.listen(again)
    again.goto(f"/{link}")
    finished(again)
    expect(headline(again).locator(".number")).to_have_text(score)
    expect_natural_size(again.locator("#picture"), SIZE)
    expect_natural_size(overlay(again, "ai"), SIZE)
    again.close()


def test_permalink_to_nothing(page: Page) -> None:
    page.goto(f"/#/{'0' * 32}")
    expect(page.locator("#problem")).to_contain_text("Detection not found")
    expect(page.get_by_role("button", name="Delete")).to_be_hidden()


def test_each_state_in_words(alone: Page, console: Console) -> None:
    console.provoked.append("503")
    unknown = {"ai_probability": None, "verdict": None, "masks": None}
    pending = made_record(1, status="queued", **unknown)
    made = MadeList(alone, [pending])
    alone.reload()
    entry = row(alone, "picture 1.jpg")
    expect(entry).to_contain_text("Queued")
    entry.click()
    phase = alone.locator("#phase")
    expect(phase).to_have_text("Queued: waiting for a worker.")
    made.records[pending["id"]] = pending | {"status": "processing"}
    expect(phase).to_contain_text("Processing")
    expect(entry).to_contain_text("Being examined")
    alone.route("**/v1/detections?ids=*", answer(problem("Redis is unavailable", "x"), 503))
    expect(alone.locator("#trouble")).to_contain_text("Redis is unavailable")
    expect(alone.locator("#trouble")).to_contain_text("Trying again")
    alone.unroute("**/v1/detections?ids=*")
    made = MadeList(alone, [pending | {"status": "processing"}])
    expect(alone.locator("#trouble")).to_be_hidden()
    error = {"code": "detection_expired", "detail": "kept until expires_at"}
    made.records[pending["id"]] = pending | {"status": "expired", "error": error}
    expect(alone.locator("#problem")).to_contain_text("This detection has expired")
    expect(alone.locator("#problem")).to_contain_text("are deleted now")
    expect(entry).to_contain_text("Expired")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("image_undecodable", "The picture could not be examined"),
        ("queue_timeout", "No worker took the picture in time"),
    ],
)
def test_ends_without_a_result_in_words(alone: Page, error: str, words: str) -> None:
    status = "expired" if error == "queue_timeout" else "failed"
    made = made_record(1, status=status, error={"code": error, "detail": "So it is."}, masks=None)
    MadeList(alone, [made])
    alone.reload()
    row(alone, "picture 1.jpg").click()
    expect(alone.locator("#problem")).to_contain_text(words)
    expect(fact(alone, "Code")).to_have_text(error)
    expect(alone.locator("#announcer")).to_contain_text(words)


def test_delete(page: Page) -> None:
    choose(page, file(SMALL_SIZE, "one.png"), file(OTHER_SIZE, "two.png"))
    expect(page.locator("#tally")).to_have_text("2", timeout=SLOW)
    finished(page, SMALL_SIZE)
    path = f"/v1/detections/{record(page)['id']}"
    page.keyboard.press("x")
    page.get_by_role("button", name="Keep").click()
    assert page.request.get(path).status == 200
    page.keyboard.press("Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(rows(page)).to_have_count(1)
    expect(page.locator("#detection-title")).to_have_text("two.png")
    expect(page.locator("#announcer")).to_have_text(re.compile(r"^one.png was deleted. two.png"))
    assert page.request.get(path).status == 404
    page.reload()
    expect(rows(page)).to_have_count(1)


def test_delete_that_is_refused(alone: Page, console: Console) -> None:
    console.provoked.append("503")
    listed(alone, 1)
    rows(alone).click()

    def refuse(route: Route) -> None:
        answer(problem("Redis is unavailable", "redis_unavailable"), 503)(route)

    alone.route(f"**/v1/detections/{0:032x}", refuse)
    alone.get_by_role("button", name="Delete").click()
    alone.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(alone.locator("#action-note")).to_contain_text(
        "could not be deleted. Redis is unavailable"
    )
    expect(rows(alone)).to_have_count(1)


@pytest.mark.parametrize(
    ("label", "name", "start"),
    [
        ("Picture with layer", "holiday-with-ai.png", b"\x89PNG"),
        ("Layer alone", "holiday-ai-layer.png", b"\x89PNG"),
        ("Mask", "holiday-ai-mask.png", b"\x89PNG"),
        ("Record", "holiday-record.json", b'{\n  "id"'),
        ("Original", "holiday.jpg", b"\xff\xd8"),
    ],
)
def test_save(page: Page, label: str, name: str, start: bytes) -> None:
    choose(page, file(SMALL_SIZE, "holiday.jpeg", "JPEG"))
    finished(page, SMALL_SIZE)
    page.locator(".choice").get_by_text("AI", exact=True).click()
    with page.expect_download() as saved:
        page.get_by_role("button", name=label).click()
    assert saved.value.suggested_filename == name
    assert saved.value.path().read_bytes().startswith(start)
