"""Uploading pictures: chosen, dropped or pasted, one or many, and errors."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FileChooser, Locator, Page, Route, expect

from tests.browser.pages import (
    FACTS,
    NO_PICTURE,
    OTHER_SIZE,
    SIZE,
    SLOW,
    SMALL_SIZE,
    TRANSFER,
    Console,
    MadeList,
    answer,
    choose,
    expect_held,
    expect_names,
    expect_natural_size,
    fact,
    file,
    finished,
    made_record,
    overlay,
    problem,
    record,
    row,
    rows,
    summary,
)
from tests.conftest import encode, photo

BREAKS_OUT = "<img src=x onerror=alert(1)>.png"


def test_chooser_takes_many_and_each_has_its_row(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose pictures").click()
    assert chooser.value.is_multiple()
    chooser.value.set_files([file(SMALL_SIZE, f"{n}.png", seed=n) for n in range(8)])
    expect_names(page, [f"{n}.png" for n in range(8)])
    expect(page.locator("#tally")).to_have_text("8", timeout=SLOW)
    finished(page, SMALL_SIZE)
    expect(page.get_by_role("heading", level=2, name="0.png")).to_be_visible()
    assert len(page.request.get("/v1/detections").json()["detections"]) == 8


def test_progress_of_each_picture(page: Page) -> None:
    """A few are sent at a time, the others wait; each has its own progress bar."""
    held: list[Route] = []
    page.route("**/v1/detections", lambda route: held.append(route))
    choose(page, *(file(SMALL_SIZE, f"{n}.png", seed=n) for n in range(5)))
    waiting = rows(page).filter(has_text="Waiting to be sent")
    expect(waiting).to_have_count(2)
    expect(waiting.first.locator("progress")).to_have_attribute("value", "0")
    expect(page.locator(".row progress:visible")).to_have_count(5)
    expect(page.get_by_role("progressbar")).to_have_count(2)  # all of them, and the open one
    expect_held(page, held, 3)
    assert len(held) == 3
    page.get_by_role("button", name="Cancel all uploads").click()
    expect(rows(page).filter(has_text="Cancelled")).to_have_count(5)
    page.unroute("**/v1/detections")
    page.get_by_role("button", name="Try 5 pictures again").click()
    expect(page.locator("#tally")).to_have_text("5", timeout=SLOW)
    finished(page, SMALL_SIZE)


def test_tally_counts_one_upload(alone: Page, console: Console) -> None:
    """Earlier pictures do not count, and those without a result are counted separately."""
    console.provoked.append("415")
    MadeList(alone, [made_record(n) for n in range(6)])
    alone.reload()
    expect(alone.locator("#tally")).to_have_text("6")
    held: list[Route] = []
    alone.route("**/v1/detections", lambda route: held.append(route))
    choose(alone, *(file(SMALL_SIZE, f"{n}.png", seed=n) for n in range(3)))
    expect(alone.locator("#tally")).to_have_text("0 of 3 done")
    expect(alone.locator("#all-bar")).to_have_attribute("value", "0")
    expect_held(alone, held, 3)
    answer(problem("The file is not an image", "not_an_image"), 415)(held[0])
    answer(made_record(7))(held[1])
    expect(alone.locator("#tally")).to_have_text("2 of 3 done")
    expect(alone.locator("#all-bar")).to_have_attribute("value", re.compile(r"^0\.66"))
    answer(made_record(8))(held[2])
    expect(alone.locator("#tally")).to_have_text("9")
    expect(alone.locator("#all-bar")).to_be_hidden()
    said = "All 3 pictures are done, 1 of them without a result."
    expect(alone.locator("#announcer")).to_have_text(said)


def test_row_shows_the_file_until_the_service_has_it(page: Page, console: Console) -> None:
    console.provoked.append("415")
    choose(page, NO_PICTURE)
    expect(row(page, "notes.png")).to_contain_text("The file is not an image")
    page.route("**/v1/detections", lambda route: None)
    choose(page, file())
    expect_natural_size(row(page, "photo.png").locator("img"), SIZE)
    expect(row(page, "notes.png").locator("img")).not_to_have_attribute("src", re.compile(""))


def test_upload_progress_is_shown(page: Page) -> None:
    """The progress of a slow upload grows before the service has answered."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000}
    session.send("Network.emulateNetworkConditions", limits)
    choose(page, file((700, 500)))
    expect(page.locator("#phase")).to_have_text(re.compile(r"Uploading: [1-9]\d?\s% sent"))
    expect(page.locator("#bar")).to_have_attribute("value", re.compile(r"^0\.\d+"))
    expect(rows(page).locator("progress")).to_have_attribute("value", re.compile(r"^0\.\d+"))
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#problem")).to_contain_text("Cancelled")
    session.detach()


def test_drop(page: Page) -> None:
    data = [[list(file(SMALL_SIZE, seed=n)["buffer"]), f"dropped {n}.png"] for n in range(2)]
    transfer = page.evaluate_handle(TRANSFER, data)
    hint = page.get_by_text("Drop the pictures to check them")
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(hint).to_be_visible()
    page.dispatch_event("body", "dragleave", {"dataTransfer": transfer})
    expect(hint).to_be_hidden()
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(hint).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(hint).to_be_hidden()
    expect(rows(page)).to_have_count(2)
    finished(page, SMALL_SIZE)


def test_drop_of_something_else(page: Page) -> None:
    transfer = page.evaluate_handle("new DataTransfer()")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#intake-note")).to_contain_text("This is not a picture file")


def accept_all(page: Page) -> None:
    """Each upload is queued, under the name it was sent with."""

    def accept(route: Route) -> None:
        data = route.request.post_data_buffer or b""
        sent = re.search(rb'name="ref_id"\r\n\r\n(.*?)\r\n', data)
        number = zlib.crc32(sent[1] if sent else b"")
        route.fulfill(json=made_record(number, status="queued", ref_id=sent and sent[1].decode()))

    page.route("**/v1/detections", accept)


COVER = """() => {
    const cover = document.createElement("div");
    cover.style = "position: fixed; inset: 0";
    document.body.append(cover);
}"""


def test_drop_of_a_folder(alone: Page, tmp_path: Path) -> None:
    """Pictures have their path and natural order; what is no picture is named."""
    (tmp_path / "inner").mkdir()
    for name in ("notes.txt", "inner/list.csv", ".hidden"):
        (tmp_path / name).write_text("no picture")
    for name in ("a10.png", "a2.png", "inner/b.png"):
        (tmp_path / name).write_bytes(encode(photo(*SMALL_SIZE), "PNG"))
    accept_all(alone)
    alone.reload()
    session = alone.context.new_cdp_session(alone)
    data = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        if kind == "drop":  # the element below the pointer changes, as while the page loads
            alone.evaluate(COVER)
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    folder = tmp_path.name
    expect_names(alone, [f"{folder}/{name}" for name in ("a2.png", "a10.png", "inner/b.png")])
    note = alone.locator("#intake-note")
    expect(note).to_have_text(
        f"Skipped, not pictures: {folder}/inner/list.csv, {folder}/notes.txt."
    )


def test_pasted_screenshot_is_named_after_the_time(alone: Page) -> None:
    accept_all(alone)
    alone.reload()
    paste(alone, TRANSFER, [[list(file(SMALL_SIZE)["buffer"]), "image.png"]])
    name = re.compile(r"^Pasted \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.png$")
    expect(alone.locator("#detection-title")).to_have_text(name)


LINK = "https://www.example.com/photo.jpg"
TEXT = """(text) => {
    const transfer = new DataTransfer();
    transfer.setData("text/plain", text);
    return transfer;
}"""


def test_pasted_link_is_fetched_by_the_service(alone: Page, console: Console) -> None:
    note = alone.locator("#intake-note")
    alone.reload()
    paste(alone, TEXT, f" {LINK} ")
    expect(note).to_contain_text("This service does not fetch links.")
    alone.route("**/v1/model", lambda route: route.fulfill(json={**FACTS, "fetch": True}))
    alone.reload()
    expect(alone.locator("#model-line")).not_to_be_empty()
    sent: list[dict] = []

    def accept(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(json=made_record(0, status="queued", ref_id=LINK), status=202)

    alone.route("**/v1/detections", accept)
    paste(alone, TEXT, LINK)
    expect(alone.locator("#detection-title")).to_have_text(LINK)
    expect(note).to_be_hidden()
    assert sent == [{"url": LINK, "ref_id": LINK, "frames": 8}]
    console.provoked.append("422")
    refusal = problem("The picture could not be fetched", "fetch_failed", "Status 404.")
    alone.route("**/v1/detections", answer(refusal, 422))
    paste(alone, TEXT, LINK)
    expect(note).to_have_text("The picture could not be fetched. Status 404.")


def test_bytes_in_errors_can_be_read(alone: Page, console: Console) -> None:
    console.provoked.append("413")
    detail = "The limit is 52428800 bytes for an upload."
    refusal = answer(problem("The upload is too large", "upload_too_large", detail), 413)
    alone.route("**/v1/detections", refusal)
    alone.reload()
    choose(alone, file(SMALL_SIZE))
    expect(alone.locator("#problem-detail")).to_have_text("The limit is 52.4 MB for an upload.")


def test_words_of_a_phone(browser: Browser, page_files: str) -> None:
    """A finger taps; nothing is dropped, pasted or typed."""
    options = {"has_touch": True, "is_mobile": True, "viewport": {"width": 375, "height": 812}}
    with browser.new_context(base_url=page_files, **options) as context:
        phone = context.new_page()
        phone.route("**/v1/model", lambda route: route.fulfill(json=FACTS))
        MadeList(phone, [])
        phone.goto("/")
        expect(phone.get_by_text("Tap to choose")).to_be_visible()
        expect(phone.get_by_text("Drop pictures anywhere")).to_be_hidden()
        expect(phone.get_by_role("button", name="Keyboard")).to_be_hidden()


def test_thumbnail_is_not_dragged(alone: Page) -> None:
    MadeList(alone, [made_record(0)])
    alone.reload()
    expect_natural_size(rows(alone).locator("img"), SIZE)
    rows(alone).locator("img").drag_to(alone.locator("#intake"))
    expect(alone.locator("#intake-note")).to_be_hidden()


def paste(page: Page, data: str, argument: object = None) -> None:
    """Where the focus is; `data`: JavaScript that makes a DataTransfer of the argument."""
    page.evaluate(
        f"""argument => document.activeElement.dispatchEvent(new ClipboardEvent("paste",
            {{clipboardData: ({data})(argument), bubbles: true}}))""",
        argument,
    )


def test_paste(page: Page) -> None:
    paste(page, TRANSFER, [[list(file(SMALL_SIZE)["buffer"]), "pasted.png"]])
    expect(page.get_by_role("heading", name="pasted.png")).to_be_visible()
    finished(page, SMALL_SIZE)


@pytest.mark.parametrize(
    "control", ["[name=filter]:checked", "[name=layer]:checked", "#opacity", "#boxes", "#find"]
)
def test_paste_while_a_control_has_the_focus(alone: Page, control: str) -> None:
    MadeList(alone, [made_record(0)])
    accept_all(alone)
    alone.reload()
    rows(alone).click()
    alone.locator(control).focus()
    paste(alone, TRANSFER, [[list(file(SMALL_SIZE)["buffer"]), "pasted.png"]])
    expect(row(alone, "pasted.png")).to_be_visible()


def test_paste_of_text(alone: Page) -> None:
    MadeList(alone, [made_record(0)])
    alone.reload()
    text = """() => {
        const transfer = new DataTransfer();
        transfer.setData("text/plain", "some words");
        return transfer;
    }"""
    alone.get_by_label("Find by name or id").focus()
    paste(alone, text)
    expect(alone.locator("#intake-note")).to_be_hidden()
    alone.locator("[name=filter]:checked").focus()
    paste(alone, text)
    expect(alone.locator("#intake-note")).to_have_text("There is no picture in the clipboard.")


def test_repeated_file_is_recognised(page: Page) -> None:
    for number in (1, 2):
        choose(page, file(SMALL_SIZE, f"{number}.png", seed=77))
        expect(page.locator("#detection-title")).to_have_text(f"{number}.png")
        finished(page, SMALL_SIZE)
    expect(fact(page, "Result")).to_contain_text("earlier detection")


def test_keyboard_alone(page: Page) -> None:
    def tab_to(target: Locator) -> None:
        for _ in range(25):
            page.keyboard.press("Tab")
            if target.evaluate("e => e === document.activeElement"):
                return
        pytest.fail("the control cannot be reached with the Tab key")

    # Interception begins with the first listener, and takes the browser a moment.
    def hear(_: FileChooser) -> None:
        pass

    page.on("filechooser", hear)
    tab_to(page.get_by_label("Choose pictures"))
    expect(page.locator("label[for=file]")).to_have_css("outline-style", "solid")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    page.remove_listener("filechooser", hear)
    chooser.value.set_files([file()])
    finished(page)
    tab_to(page.get_by_label("AI", exact=True))
    page.keyboard.press("ArrowRight")
    expect(overlay(page, "manipulation")).to_be_visible()
    tab_to(page.get_by_label("Layer opacity"))
    page.keyboard.press("Home")
    expect(overlay(page, "manipulation")).to_have_css("opacity", "0")


def test_name_of_a_file_is_text_and_survives_a_reload(page: Page) -> None:
    choose(page, file(name=BREAKS_OUT))
    expect(page.locator("#detection-title")).to_have_text(BREAKS_OUT)
    finished(page)
    assert record(page)["ref_id"] == BREAKS_OUT
    page.reload()
    expect(page.locator("#detection-title")).to_have_text(BREAKS_OUT)
    expect_names(page, [BREAKS_OUT])


def test_name_with_characters_invalid_in_references(page: Page) -> None:
    """Names of screenshots have a narrow space in them; others are too long."""
    choose(page, file(SMALL_SIZE, "at\u202f5\tpm" + "é" * 300 + ".png"))
    finished(page, SMALL_SIZE)
    assert record(page)["ref_id"] == "at 5 pm" + "é" * 193


def test_not_a_picture(page: Page, console: Console) -> None:
    console.provoked.append("415")
    choose(page, NO_PICTURE)
    shown = page.locator("#problem")
    expect(shown.get_by_role("heading")).to_have_text("The file is not an image")
    expect(fact(page, "Code")).to_have_text("not_an_image")
    expect(fact(page, "Request")).to_have_text(re.compile(r"^[0-9a-f]{32}$"))
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#announcer")).to_contain_text("The file is not an image")


def test_one_bad_picture_among_good_ones(page: Page, console: Console) -> None:
    console.provoked.append("415")
    choose(page, file(SMALL_SIZE), NO_PICTURE, file(OTHER_SIZE, "other.png"))
    expect(row(page, "notes.png")).to_contain_text("The file is not an image")
    expect(page.locator("#tally")).to_have_text("3", timeout=SLOW)
    page.locator("#filters label").filter(has_text="No result").click()
    expect_names(page, ["notes.png"])


def test_picture_that_fails_to_decode(page: Page, console: Console) -> None:
    console.provoked.append("422")
    whole = encode(photo(*SIZE), "JPEG")
    choose(page, file(name="cut.jpg") | {"buffer": whole[: len(whole) // 2]})
    expect(page.locator("#problem")).to_contain_text("could not be examined", timeout=SLOW)
    expect(fact(page, "Code")).to_have_text("image_truncated")
    expect(summary(page)).to_be_hidden()


def test_upload_beyond_the_limit(page: Page, console: Console) -> None:
    console.provoked.append("413")
    page.locator("#file").evaluate(
        """input => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(60 * 2 ** 20)], "huge.png"));
            input.files = transfer.files;
            input.dispatchEvent(new Event("change"));
        }"""
    )
    shown = page.locator("#problem")
    expect(shown).to_contain_text("The upload is too large")


@pytest.mark.parametrize("status", [429, 503])
def test_rate_limit_pauses_and_resumes_uploads(page: Page, console: Console, status: int) -> None:
    console.provoked.append(str(status))
    tries: list[str] = []

    def refuse(route: Route) -> None:
        tries.append(route.request.headers["idempotency-key"])
        answer(problem("Too much at once", "rate_limited"), status, retry_after=3600)(route)

    page.route("**/v1/detections", refuse)
    choose(page, file(SMALL_SIZE), file(OTHER_SIZE, "other.png"))
    notice = page.locator("#paused")
    expect(notice).to_contain_text("Too much at once")
    expect(notice).to_contain_text("2 pictures wait in this tab")
    expect(notice).to_contain_text("tries again in 3,600 seconds")
    expect(rows(page).filter(has_text="Delayed")).to_have_count(2)
    page.unroute("**/v1/detections")
    with page.expect_request("**/v1/detections") as sent:
        page.get_by_role("button", name="Try now").click()
    expect(page.locator("#tally")).to_have_text("2", timeout=SLOW)
    expect(notice).to_be_hidden()
    assert len(tries) == 2  # one for each: what the service asked for was obeyed
    assert sent.value.headers["idempotency-key"] in tries


def test_retry_after_is_respected(page: Page, console: Console) -> None:
    console.provoked.append("503")
    refusals = iter([answer(problem("The queue is full", "queue_full"), 503, retry_after=1)])

    def refuse_once(route: Route) -> None:
        refusal = next(refusals, None)
        if refusal is None:
            route.continue_()
        else:
            refusal(route)

    page.route("**/v1/detections", refuse_once)
    choose(page, file(SMALL_SIZE))
    finished(page, SMALL_SIZE)


def test_service_down_and_up_again(page: Page, console: Console) -> None:
    console.provoked.append("net::ERR_CONNECTION_REFUSED")
    page.route(re.compile("/v1/|/livez"), lambda route: route.abort("connectionrefused"))
    choose(page, file())
    notice = page.locator("#paused")
    expect(notice).to_contain_text("The service cannot be reached")
    expect(notice).to_contain_text("1 picture waits in this tab")
    page.unroute(re.compile("/v1/|/livez"))
    finished(page)  # the page has tried again by itself
    expect(notice).to_be_hidden()


def test_broken_connection_while_the_service_is_up(page: Page, console: Console) -> None:
    """Only this file fails, and the others do not wait for it."""
    console.provoked.append("net::ERR_CONNECTION_RESET")
    page.route("**/v1/detections", lambda route: route.abort("connectionreset"), times=1)
    choose(page, file())
    expect(page.locator("#problem")).to_contain_text("The service cannot be reached")
    page.get_by_role("button", name="Try again").click()
    finished(page)


def test_cancel_ends_the_upload(page: Page) -> None:
    page.route("**/v1/detections", lambda route: None)
    choose(page, file())
    expect(page.locator("#phase")).to_contain_text("Uploading")
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#problem")).to_contain_text("The picture was not sent")


def test_leaving_with_unsent_pictures_asks_for_confirmation(page: Page) -> None:
    page.route("**/v1/detections", lambda route: None)
    choose(page, file())
    expect(page.locator("#phase")).to_contain_text("Uploading")
    asked: list[str] = []

    def accept(dialog) -> None:  # type: ignore[no-untyped-def]
        asked.append(dialog.type)
        dialog.accept()

    page.once("dialog", accept)
    page.reload()
    assert asked == ["beforeunload"]
