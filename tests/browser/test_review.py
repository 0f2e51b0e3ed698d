"""The review list: contents, keyboard and persistence."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.pages import (
    NO_PICTURE,
    OLDEST_FIRST,
    OTHER_SIZE,
    SIZE,
    SMALL_SIZE,
    TIMEOUT,
    Console,
    MadeList,
    answer,
    choose,
    expect_natural_size,
    fact,
    file,
    finished,
    headline,
    made_record,
    names,
    overlay,
    pick_filter,
    problem,
    record,
    row,
    rows,
)

MANY = 400


def queued_record(number: int) -> dict:
    unknown = {"ai_probability": None, "verdict": None, "masks": None, "timings": None}
    return made_record(number, status="queued", finished_at=None, **unknown)


def listed(page: Page, count: int) -> MadeList:
    made = MadeList(page, [made_record(number) for number in range(count)])
    page.evaluate(OLDEST_FIRST)
    page.reload()
    expect(rows(page)).to_have_count(count)
    return made


def test_four_hundred_pictures(page: Page) -> None:
    """All are listed in pages; thumbnails are loaded for visible rows only."""
    made = listed(page, MANY)
    assert names(page) == [f"picture {n}.jpg" for n in range(MANY)]
    expect(page.locator("#tally")).to_have_text(str(MANY))
    expect(rows(page).first.locator("img")).to_have_js_property("naturalWidth", SIZE[0])
    assert 5 < len(made.thumbnails) < MANY / 4
    rows(page).first.click()
    page.keyboard.press("End")
    expect(page.locator("#detection-title")).to_have_text(f"picture {MANY - 1}.jpg")
    expect(rows(page).last).to_be_in_viewport()
    expect(rows(page).last.locator("img")).to_have_js_property("naturalWidth", SIZE[0])
    assert len(made.thumbnails) < 120
    for _ in range(30):
        page.keyboard.press("k")
    expect(page.locator("#detection-title")).to_have_text(f"picture {MANY - 31}.jpg")
    expect_natural_size(overlay(page, "ai"), SIZE)


def test_following_many_pictures_costs_little(alone: Page) -> None:
    """Four of 400 finish in a second; lists of at most 2 MB are sent, uncompressed."""
    alone.clock.install()
    made = MadeList(alone, [queued_record(number) for number in range(MANY)])
    alone.reload()
    expect(rows(alone)).to_have_count(MANY)
    for number in range(MANY):
        made.records[f"{number:032x}"] = made_record(number)
        if number % 8 != 7 or number == MANY - 1:
            continue
        with alone.expect_request("**/v1/detections?ids=*"):
            alone.clock.run_for(2000)
    unfinished = rows(alone).filter(has_text="Queued")
    while unfinished.count() > 0:
        alone.clock.run_for(2000)
    assert made.bytes <= 2_000_000


def test_a_list_that_has_not_changed_is_not_sent_again(alone: Page) -> None:
    made = MadeList(alone, [made_record(n) for n in range(3)])
    alone.reload()
    expect(rows(alone)).to_have_count(3)
    sent = made.bytes
    for _ in range(2):
        with alone.expect_response("**/v1/detections?limit=*") as answered:
            alone.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        assert answered.value.status == 304
        expect(alone.locator("#list-note")).to_be_hidden()
    assert (made.bytes, made.unchanged) == (sent, 2)


def test_place_in_the_queue_and_time_left(alone: Page) -> None:
    alone.clock.install()
    timings = made_record(0)["timings"] | {"queued": 1.0, "total": 21.0}
    done = [
        made_record(n, timings=timings, finished_at=f"2026-01-01T12:00:0{n}Z") for n in range(4)
    ]
    waiting = queued_record(9)
    made = MadeList(alone, [*done, waiting | {"queue_position": 12}])
    alone.reload()
    expect(row(alone, "picture 9.jpg")).to_contain_text("Queued, position 12")
    row(alone, "picture 9.jpg").click()
    estimate = alone.locator("#estimate")
    expect(estimate).to_contain_text("Position 12 in the queue")
    alone.clock.run_for(4000)
    expect(estimate).to_have_text(re.compile(r"so far, about 32\sseconds left"))
    told = {"queue_position": 3, "expected_wait": 70.0}
    made.records[waiting["id"]] = waiting | told
    alone.clock.run_for(4000)
    expect(estimate).to_have_text(re.compile(r"^Position 3 .* about 2\sminutes left\.$"))
    made.records[waiting["id"]] = waiting | {"status": "processing"}
    alone.clock.run_for(4000)
    expect(alone.locator("#phase")).to_contain_text("Processing")
    alone.clock.run_for(10_000)
    said = re.compile(r"^For 1\d\sseconds so far, about \d+\sseconds left\.$")
    expect(estimate).to_have_text(said)
    expect(alone.locator("#bar")).to_have_attribute("value", re.compile(r"^0\.[4-9]"))


def test_older_ones_are_listed_on_demand(page: Page) -> None:
    made = MadeList(page, [made_record(number) for number in range(530)])
    page.reload()
    expect(rows(page)).to_have_count(500)
    expect(page.locator("#tally")).to_have_text("the newest 500")
    page.get_by_role("button", name="Show older").click()
    expect(rows(page)).to_have_count(530)
    expect(page.locator("#tally")).to_have_text("530")
    expect(page.get_by_role("button", name="Show older")).to_be_hidden()
    assert len(made.records) == 530


def test_filter_order_and_find(page: Page) -> None:
    listed(page, 30)
    records = [made_record(number) for number in range(30)]

    def expected(verdict: str) -> list[str]:
        return [str(made["ref_id"]) for made in records if made["verdict"] == verdict]

    for label, verdict in (
        ("Signs of AI", "ai_generated"),
        ("Uncertain", "uncertain"),
        ("No sign of AI", "authentic"),
    ):
        pick_filter(page, label)
        assert names(page) == expected(verdict)
        count = page.locator("#filters label").filter(has_text=label).locator(".count")
        expect(count).to_have_text(str(len(expected(verdict))))
    pick_filter(page, "Manipulated")
    assert names(page) == [f"picture {n}.jpg" for n in range(0, 30, 4)]
    page.get_by_label("Find by name or id").fill("2.JPG")
    assert names(page) == ["picture 12.jpg"]
    page.get_by_label("Find by name or id").fill("nothing like it")
    expect(page.get_by_text("No pictures match.")).to_be_visible()
    page.get_by_label("Find by name or id").fill("")
    pick_filter(page, "All")
    by_score = sorted(records, key=lambda made: -float(str(made["ai_probability"])))
    page.get_by_label("Order").select_option("Highest AI score first")
    assert names(page) == [made["ref_id"] for made in by_score]
    page.get_by_label("Order").select_option("Lowest AI score first")
    assert names(page) == [made["ref_id"] for made in by_score[::-1]]
    page.get_by_label("Order").select_option("Newest first")
    assert names(page) == [made["ref_id"] for made in records[::-1]]
    page.get_by_label("Order").select_option("Name")
    assert names(page) == [made["ref_id"] for made in records]


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
    assert names(alone) == ["picture 0.jpg", "picture 4.jpg"]
    expect(alone.get_by_role("group", name="Original")).to_be_visible()


def test_grid_of_thumbnails(alone: Page) -> None:
    """It is remembered, and arrow keys move by lines of it."""
    listed(alone, 30)
    alone.get_by_text("Grid", exact=True).click()
    alone.reload()
    expect(rows(alone)).to_have_count(30)
    boxes = [box for entry in rows(alone).all()[:12] if (box := entry.bounding_box())]
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
    assert names(alone) == ["picture 0.jpg"]
    pick_filter(alone, "Low, but marked")
    assert names(alone) == ["picture 1.jpg"]


def test_keys_go_from_picture_to_picture(page: Page) -> None:
    listed(page, 5)
    title = page.locator("#detection-title")
    page.keyboard.press("j")
    expect(title).to_have_text("picture 0.jpg")
    expect(rows(page).first).to_be_focused()
    expect(rows(page).first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    expect(title).to_have_text("picture 2.jpg")
    expect(page).to_have_url(f"/#/{2:032x}")
    page.keyboard.press("k")
    expect(title).to_have_text("picture 1.jpg")
    page.keyboard.press("End")
    expect(title).to_have_text("picture 4.jpg")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(title).to_have_text("picture 3.jpg")
    expect(rows(page).and_(page.locator("[tabindex='0']"))).to_have_count(1)


def test_keys_move_through_the_filtered_list(page: Page) -> None:
    listed(page, 9)
    pick_filter(page, "Manipulated")
    page.locator("body").press("j")
    page.keyboard.press("j")
    expect(page.locator("#detection-title")).to_have_text("picture 4.jpg")


def test_keys_can_be_switched_off_and_leave_fields_alone(page: Page) -> None:
    listed(page, 2)
    page.get_by_label("Find by name or id").press_sequentially("jpg")
    expect(page.locator("#detection")).to_be_hidden()
    page.get_by_label("Find by name or id").fill("")
    page.get_by_role("button", name="Keyboard").click()
    page.get_by_label("Use single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("j")
    page.keyboard.press("?")
    expect(page.locator("#detection")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Keyboard").click()
    page.get_by_label("Use single-key shortcuts").check()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.locator("#detection-title")).to_have_text("picture 0.jpg")


def test_list_survives_a_reload(page: Page) -> None:
    choose(page, file(SMALL_SIZE, "one.png"), file(OTHER_SIZE, "two.png"))
    expect(page.locator("#tally")).to_have_text("2", timeout=TIMEOUT)
    assert names(page) == ["one.png", "two.png"]
    scores = dict(zip(names(page), page.locator(".row .figure").all_inner_texts(), strict=True))
    newest_first = page.request.get("/v1/detections").json()["detections"]
    page.reload()
    expect(page.get_by_role("heading", name="one.png")).to_be_visible()
    finished(page, SMALL_SIZE)
    expect(rows(page)).to_have_count(2)
    assert names(page) == [made["ref_id"] for made in newest_first]
    assert page.locator(".row .figure").all_inner_texts() == [scores[n] for n in names(page)]


def test_order_of_arrival_within_a_millisecond(page: Page) -> None:
    times = [f"2026-01-01T00:00:00.0001{n:02d}Z" for n in range(9)]
    MadeList(page, [made_record(n, created_at=time) for n, time in enumerate(times)])
    page.reload()
    expect(rows(page)).to_have_count(9)
    assert names(page) == [f"picture {n}.jpg" for n in reversed(range(9))]


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


def test_failed_thumbnail_is_requested_once(page: Page, console: Console) -> None:
    console.provoked.append("422")
    MadeList(page, [made_record(1, status="queued", masks=None)])
    tries: list[str] = []

    def refuse(route: Route) -> None:
        tries.append(route.request.url)
        answer(problem("The image is truncated", "image_truncated"), 422)(route)

    page.route("**/image?**", refuse)
    page.reload()
    expect(rows(page)).to_have_count(1)
    for _ in range(4):
        with page.expect_request("**/v1/detections?ids=*"):
            pass
    assert len(tries) == 1


def test_detections_of_other_clients_appear(page: Page) -> None:
    """The list is refreshed when the page becomes visible again."""
    made = listed(page, 3)
    made.records[f"{3:032x}"] = made_record(3)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(rows(page)).to_have_count(4)


def test_rows_deleted_elsewhere_vanish(alone: Page) -> None:
    """When the page is looked at again; the open one stays, as not found."""
    made = listed(alone, 130)
    row(alone, "picture 40.jpg").click()
    for number in (3, 40, 125):
        del made.records[f"{number:032x}"]
    alone.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(rows(alone)).to_have_count(128)
    expect(alone.locator("#problem")).to_contain_text("Detection not found")
    alone.get_by_role("button", name="Remove", exact=True).click()
    expect(rows(alone)).to_have_count(127)
    assert not {"picture 3.jpg", "picture 40.jpg", "picture 125.jpg"} & set(names(alone))


def test_row_deleted_in_another_tab_vanishes_at_once(alone: Page) -> None:
    listed(alone, 3)
    alone.evaluate(f"new BroadcastChannel('gamma-deletions').postMessage('{1:032x}')")
    expect(rows(alone)).to_have_count(2)
    assert names(alone) == ["picture 0.jpg", "picture 2.jpg"]


def test_rows_without_a_result_can_be_removed(alone: Page, console: Console) -> None:
    console.provoked.append("415")
    listed(alone, 1)
    refusal = answer(problem("The file is not an image", "not_an_image"), 415)
    alone.route("**/v1/detections", refusal)
    choose(alone, *(NO_PICTURE | {"name": f"{n}.png"} for n in range(3)))
    row(alone, "1.png").click()
    expect(alone.locator("#problem")).to_be_visible()
    alone.keyboard.press("x")
    expect(rows(alone)).to_have_count(3)
    alone.get_by_role("button", name="Remove 2 pictures without a result").click()
    expect(rows(alone)).to_have_count(1)


def test_rows_of_the_former_key_are_dropped(alone: Page, console: Console) -> None:
    console.provoked.append("403")
    alone.evaluate("sessionStorage.setItem('gamma-api-key', 'former')")
    listed(alone, 3)
    alone.unroute("**/v1/detections?**")
    others = MadeList(alone, [made_record(7), made_record(8)])

    def owned(route: Route) -> None:
        if route.request.headers["authorization"] == "Bearer former":
            answer(problem("The API key is not valid", "key_invalid"), 403)(route)
        else:
            others.list(route)

    alone.route("**/v1/detections?**", owned)
    alone.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    alone.get_by_role("textbox", name="API key").fill("other")
    alone.keyboard.press("Enter")
    expect(rows(alone)).to_have_count(2)
    assert names(alone) == ["picture 7.jpg", "picture 8.jpg"]


def test_thumbnail_comes_back_after_an_outage(alone: Page, console: Console) -> None:
    console.provoked.append("ERR_FAILED")
    alone.clock.install()
    MadeList(alone, [made_record(0)])
    alone.route("**/image?**", lambda route: route.abort())
    with alone.expect_event("requestfailed"):
        alone.reload()
    alone.unroute("**/image?**")
    MadeList(alone, [made_record(0)])
    expect(rows(alone)).to_have_count(1)
    alone.clock.fast_forward(15_000)
    expect_natural_size(rows(alone).locator("img"), SIZE)


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


def test_permalink_to_nothing(page: Page) -> None:
    page.goto(f"/#/{'0' * 32}")
    expect(page.locator("#problem")).to_contain_text("Detection not found")
    expect(page.get_by_role("button", name="Delete")).to_be_hidden()


def test_each_state_in_words(page: Page, console: Console) -> None:
    console.provoked.append("503")
    unknown = {"ai_probability": None, "verdict": None, "masks": None}
    pending = made_record(1, status="queued", **unknown)
    made = MadeList(page, [pending])
    page.reload()
    entry = row(page, "picture 1.jpg")
    expect(entry).to_contain_text("Queued")
    entry.click()
    phase = page.locator("#phase")
    expect(phase).to_have_text("Queued: waiting for a worker.")
    made.records[pending["id"]] = pending | {"status": "processing"}
    expect(phase).to_contain_text("Processing")
    expect(entry).to_contain_text("Being examined")
    page.route("**/v1/detections?ids=*", answer(problem("Redis is unavailable", "x"), 503))
    expect(page.locator("#trouble")).to_contain_text("Redis is unavailable")
    expect(page.locator("#trouble")).to_contain_text("Trying again")
    page.unroute("**/v1/detections?ids=*")
    made = MadeList(page, [pending | {"status": "processing"}])
    expect(page.locator("#trouble")).to_be_hidden()
    error = {"code": "detection_expired", "detail": "kept until expires_at"}
    made.records[pending["id"]] = pending | {"status": "expired", "error": error}
    expect(page.locator("#problem")).to_contain_text("This detection has expired")
    expect(page.locator("#problem")).to_contain_text("are deleted now")
    expect(entry).to_contain_text("Expired")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("image_undecodable", "The picture could not be examined"),
        ("queue_timeout", "No worker took the picture in time"),
    ],
)
def test_ends_without_a_result_in_words(page: Page, error: str, words: str) -> None:
    status = "expired" if error == "queue_timeout" else "failed"
    made = made_record(1, status=status, error={"code": error, "detail": "So it is."}, masks=None)
    MadeList(page, [made])
    page.reload()
    row(page, "picture 1.jpg").click()
    expect(page.locator("#problem")).to_contain_text(words)
    expect(fact(page, "Code")).to_have_text(error)
    expect(page.locator("#announcer")).to_contain_text(words)


def test_delete(page: Page) -> None:
    choose(page, file(SMALL_SIZE, "one.png"), file(OTHER_SIZE, "two.png"))
    expect(page.locator("#tally")).to_have_text("2", timeout=TIMEOUT)
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


def test_delete_that_is_refused(page: Page, console: Console) -> None:
    console.provoked.append("503")
    listed(page, 1)
    rows(page).click()

    def refuse(route: Route) -> None:
        answer(problem("Redis is unavailable", "redis_unavailable"), 503)(route)

    page.route(f"**/v1/detections/{0:032x}", refuse)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#action-note")).to_contain_text(
        "could not be deleted. Redis is unavailable"
    )
    expect(rows(page)).to_have_count(1)


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
