"""What the list does when detections change: progress, deletion, other tabs and outages."""

from __future__ import annotations

import re

from playwright.sync_api import Page, Route, expect

from tests.browser.pages import (
    MANY,
    NO_PICTURE,
    SIZE,
    Console,
    MadeList,
    answer,
    choose,
    expect_held,
    expect_names,
    expect_natural_size,
    listed,
    made_record,
    names,
    problem,
    queued_record,
    row,
    rows,
)


def test_following_many_pictures_costs_little(fresh: Page) -> None:
    """Four of 400 finish in a second; lists of at most 2 MB are sent, uncompressed."""
    fresh.clock.install()
    made = MadeList(fresh, [queued_record(number) for number in range(MANY)])
    fresh.reload()
    expect(rows(fresh)).to_have_count(MANY)
    for number in range(MANY):
        made.records[f"{number:032x}"] = made_record(number)
        if number % 8 != 7 or number == MANY - 1:
            continue
        with fresh.expect_request("**/v1/detections?ids=*"):
            fresh.clock.run_for(2000)
    unfinished = rows(fresh).filter(has_text="Queued")
    while unfinished.count() > 0:
        fresh.clock.run_for(2000)
    assert made.bytes <= 2_000_000


def test_an_end_is_heard_at_once(fresh: Page) -> None:
    """Also of a picture that is not polled, because many wait before it."""
    fresh.clock.install()
    made = MadeList(fresh, [queued_record(number) for number in range(100)])
    with fresh.expect_response("**/v1/events"):
        fresh.reload()
        fresh.clock.run_for(1000)
    made.records[f"{70:032x}"] = made_record(70)
    fresh.clock.run_for(3000)
    expect(row(fresh, "picture 70.jpg")).to_contain_text("%")


def test_pictures_are_polled_if_ends_cannot_be_heard(alone: Page, console: Console) -> None:
    console.provoked.append("429")
    made = MadeList(alone, [queued_record(number) for number in range(3)])
    refusal = answer(problem("Your share is in use", "too_many_downloads"), 429)
    alone.route("**/v1/events", refusal)
    with alone.expect_response("**/v1/events"):
        alone.reload()
    made.records[f"{1:032x}"] = made_record(1)
    expect(row(alone, "picture 1.jpg")).to_contain_text("%")


def test_one_visible_tab_of_a_browser_hears_ends(page: Page, console: Console) -> None:
    """A browser has six connections to a host, which a stream in each tab would take."""
    other = page.context.new_page()
    console.listen(other)
    for tab in (page, other):
        MadeList(tab, [queued_record(0)])
        tab.unroute("**/v1/events")
    with page.expect_response("**/v1/events") as opened:
        page.reload()
    assert opened.value.headers["content-type"].startswith("text/event-stream")
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto("/")
    for _ in range(3):
        with other.expect_response("**/v1/detections?ids=*"):
            pass
    assert not any("/v1/events" in url for url in asked)
    with other.expect_response("**/v1/events"), page.expect_event("requestfailed"):
        page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    other.close()


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


def test_place_in_the_queue_and_time_left(fresh: Page) -> None:
    fresh.clock.install()
    timings = made_record(0)["timings"] | {"queued": 1.0, "total": 21.0}
    done = [
        made_record(n, timings=timings, finished_at=f"2026-01-01T12:00:0{n}Z") for n in range(4)
    ]
    waiting = queued_record(9)
    made = MadeList(fresh, [*done, waiting | {"queue_position": 12}])
    fresh.reload()
    expect(row(fresh, "picture 9.jpg")).to_contain_text("Queued, position 12")
    row(fresh, "picture 9.jpg").click()
    estimate = fresh.locator("#estimate")
    expect(estimate).to_contain_text("Position 12 in the queue")
    fresh.clock.run_for(4000)
    expect(estimate).to_have_text(re.compile(r"so far, about 32\sseconds left"))
    told = {"queue_position": 3, "expected_wait": 70.0}
    made.records[waiting["id"]] = waiting | told
    fresh.clock.run_for(4000)
    expect(estimate).to_have_text(re.compile(r"^Position 3 .* about 2\sminutes left\.$"))
    made.records[waiting["id"]] = waiting | {"status": "processing"}
    fresh.clock.run_for(4000)
    expect(fresh.locator("#phase")).to_contain_text("Processing")
    fresh.clock.run_for(10_000)
    said = re.compile(r"^For [1-9]\d\sseconds so far, about \d+\sseconds left\.$")
    expect(estimate).to_have_text(said)
    expect(fresh.locator("#bar")).to_have_attribute("value", re.compile(r"^0\.[4-9]"))


def test_detections_of_other_clients_appear(alone: Page) -> None:
    """The list is refreshed when the page becomes visible again."""
    made = listed(alone, 3)
    made.records[f"{3:032x}"] = made_record(3)
    alone.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(rows(alone)).to_have_count(4)


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


def test_a_look_at_the_page_while_the_list_is_loaded_counts(fresh: Page) -> None:
    fresh.add_init_script("window.setInterval = () => 0")  # or it would look every 30 s
    made = listed(fresh, 3)
    held: list[Route] = []
    fresh.route("**/v1/detections?limit=*", lambda route: held.append(route))
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    fresh.evaluate(look)
    expect_held(fresh, held, 1)
    fresh.evaluate(look)
    made.list(held[0])
    del made.records[f"{1:032x}"]
    expect_held(fresh, held, 2)
    made.list(held[1])
    expect_names(fresh, ["picture 0.jpg", "picture 2.jpg"])


def test_the_picture_that_was_asked_about_is_deleted(alone: Page, console: Console) -> None:
    """And not the one that was opened meanwhile because the first deletion was slow."""
    console.provoked.append("404")
    listed(alone, 3)
    deleted: list[Route] = []

    def hold(route: Route) -> None:
        assert route.request.method == "DELETE"
        deleted.append(route)

    alone.route(re.compile("/v1/detections/[0-9a-f]{32}$"), hold)
    rows(alone).first.click()
    title, confirm = alone.locator("#detection-title"), alone.locator("#delete-yes")
    alone.keyboard.press("x")
    confirm.click()
    expect_held(alone, deleted, 1)
    alone.keyboard.press("x")
    deleted[0].fulfill(status=204)
    expect(title).to_have_text("picture 1.jpg")
    confirm.click()
    expect_held(alone, deleted, 2)
    assert [route.request.url[-2:] for route in deleted] == ["00", "00"]
    deleted[1].fulfill(status=404, json=problem("Not found", "not_found"))
    expect(confirm).to_be_hidden()
    expect_names(alone, ["picture 1.jpg", "picture 2.jpg"])


def test_row_deleted_in_another_tab_vanishes_at_once(alone: Page) -> None:
    listed(alone, 3)
    alone.evaluate(f"new BroadcastChannel('gamma-deletions').postMessage('{1:032x}')")
    expect_names(alone, ["picture 0.jpg", "picture 2.jpg"])


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
    expect_names(alone, ["picture 7.jpg", "picture 8.jpg"])


def test_thumbnail_comes_back_after_an_outage(fresh: Page, console: Console) -> None:
    console.provoked.append("ERR_FAILED")
    fresh.clock.install()
    MadeList(fresh, [made_record(0)])
    fresh.route("**/image?**", lambda route: route.abort())
    with fresh.expect_event("requestfailed"):
        fresh.reload()
    fresh.unroute("**/image?**")
    MadeList(fresh, [made_record(0)])
    expect(rows(fresh)).to_have_count(1)
    fresh.clock.fast_forward(15_000)
    expect_natural_size(rows(fresh).locator("img"), SIZE)
