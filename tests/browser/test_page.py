"""The page and the API documentation in real Chromium, against the real service."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Route,
    expect,
    sync_playwright,
)

from app import overlays
from tests.conftest import Serve, encode, photo, require_program

SIZE = (640, 400)
OTHER_SIZE = (300, 520)
SMALL_SIZE = (64, 48)
BREAKS_OUT = "<img src=x onerror=alert(1)>.png"
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_TIMEOUT = 30_000  # ms; a detection on a slow machine
_REPORT_VIOLATIONS = (
    "addEventListener('securitypolicyviolation', event =>"
    " console.error('CSP', event.violatedDirective, event.blockedURI, event.sourceFile))"
)

FilePayload = dict[str, str | bytes]


def file(size: tuple[int, int] = SIZE, name: str = "photo.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": encode(photo(*size), "PNG")}


class Console:
    """What the browser complains of; a test names what it provokes."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.provoked: list[str] = []

    def listen(self, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def unexpected(self) -> list[str]:
        return [c for c in self.complaints if not any(part in c for part in self.provoked)]


@pytest.fixture(scope="module")  # not longer: its event loop would be in the way of other tests
def browser() -> Iterator[Browser]:
    executable = require_program("chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=[*_ARGUMENTS])
        yield launched
        launched.close()


@pytest.fixture
def console() -> Iterator[Console]:
    console = Console()
    yield console
    assert console.unexpected() == []


@pytest.fixture
def context(browser: Browser, service: Serve) -> Iterator[BrowserContext]:
    made = browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 800})
    made.set_default_timeout(_TIMEOUT)
    made.add_init_script(_REPORT_VIOLATIONS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, console: Console) -> Page:
    page = context.new_page()
    console.listen(page)
    page.goto("/")
    return page


def choose(page: Page, chosen: FilePayload) -> None:
    page.get_by_label("Choose a picture").set_input_files(chosen)


def summary(page: Page) -> Locator:
    return page.locator("#summary")


def finished(page: Page, size: tuple[int, int] = SIZE) -> None:
    expect(summary(page)).to_be_visible(timeout=_TIMEOUT)
    expect(fact(page, "Size")).to_have_text(f"{size[0]} × {size[1]} pixels")


def fact(page: Page, term: str) -> Locator:
    return page.locator("dl > div", has=page.get_by_text(term, exact=True)).locator("dd")


def overlay(page: Page, layer: str) -> Locator:
    return page.locator(f".overlay[data-layer={layer}]")


def expect_natural_size(image: Locator, size: tuple[int, int]) -> None:
    expect(image).to_have_js_property("naturalWidth", size[0])
    expect(image).to_have_js_property("naturalHeight", size[1])


def record(page: Page) -> dict:
    identity = page.evaluate("location.hash.slice(1)")
    return page.request.get(f"/v1/detections/{identity}").json()


def answer(body: dict, status: int = 200) -> Callable[[Route], None]:
    headers = {"X-Request-ID": "request-17"}
    return lambda route: route.fulfill(status=status, json=body, headers=headers)


# -- loading -----------------------------------------------------------------------------------


def test_loads_without_complaint_and_says_what_the_scores_are_worth(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("#notice")).to_contain_text("its scores mean nothing")
    expect(page.locator("#model-line")).to_contain_text("untrained")
    expect(page.locator("#detection")).to_be_hidden()


def test_policy_stops_foreign_and_inline_code(page: Page, console: Console) -> None:
    console.provoked.append("CSP script-src")
    console.provoked.append("Content Security Policy")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'document.body.dataset.ran = 1'}))"
    )
    assert page.locator("body").get_attribute("data-ran") is None
    assert any("CSP script-src" in complaint for complaint in console.complaints)


def test_says_that_no_worker_is_ready_until_one_is(page: Page, console: Console) -> None:
    console.provoked.append("503")
    problem = {"title": "No worker is ready", "detail": "None was heard of.", "code": "no_worker"}
    page.route("**/v1/model", answer(problem, 503))
    page.reload()
    expect(page.locator("#notice")).to_contain_text("No worker is ready")
    expect(page.locator("#notice")).to_contain_text("they wait in the queue")
    page.unroute("**/v1/model")
    expect(page.locator("#notice")).to_contain_text("Untrained model", timeout=_TIMEOUT)


# -- a picture and its result ------------------------------------------------------------------


def test_upload_through_the_chooser(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose a picture").click()
    chooser.value.set_files(file())
    finished(page)
    found = record(page)
    expect(page.get_by_role("heading", name="photo.png")).to_be_visible()
    shown = summary(page).locator(".number").inner_text()
    assert float(shown.rstrip("%")) == pytest.approx(found["ai_probability"] * 100, abs=0.06)
    verdicts = {
        "authentic": "No sign of AI generation found",
        "uncertain": "Uncertain",
        "ai_generated": "Signs of AI generation found",
    }
    expect(summary(page).get_by_role("heading")).to_have_text(verdicts[found["verdict"]])
    expect(summary(page).locator(".score .badge")).to_have_text("untrained")
    expect(summary(page)).to_contain_text("score and verdict mean nothing")
    manipulated = "yes" if found["manipulated"] else "no"
    expect(summary(page)).to_contain_text(f"Manipulated: {manipulated}")
    expect(fact(page, "Examined")).to_contain_text("The whole picture")
    expect(fact(page, "Name")).to_have_text(found["model"]["name"])
    expect(fact(page, "Version")).to_have_text("untrained")
    for term in ("Scale", "Kept until", "In all"):
        expect(fact(page, term)).not_to_be_empty()
    for layer in ("ai", "manipulation"):
        expect_natural_size(overlay(page, layer), SIZE)
    expect(page.get_by_role("status").last).to_contain_text("Finished. AI score")


def test_layers_and_opacity(page: Page) -> None:
    choose(page, file())
    finished(page)
    ai, manipulation = overlay(page, "ai"), overlay(page, "manipulation")
    expect_natural_size(ai, SIZE)
    expect(ai).to_be_visible()
    expect(manipulation).to_be_hidden()
    slider = page.get_by_label("Overlay opacity")
    slider.fill("30")
    expect(ai).to_have_css("opacity", "0.3")
    expect(page.locator("#opacity-value")).to_have_text("30 %")

    slider.fill("100")
    opaque = page.locator("#stage").screenshot()
    slider.fill("0")
    expect(ai).to_have_css("opacity", "0")
    assert page.locator("#stage").screenshot() != opaque

    page.get_by_text("Manipulation", exact=True).click()
    expect(ai).to_be_hidden()
    expect(manipulation).to_be_visible()
    expect(manipulation).to_have_css("opacity", "0")
    page.get_by_text("None", exact=True).click()
    expect(ai).to_be_hidden()
    expect(manipulation).to_be_hidden()
    expect(slider).to_be_disabled()


def test_overlay_lies_exactly_on_the_picture(page: Page) -> None:
    sideways = photo(*SIZE)
    exif = sideways.getexif()
    exif[0x0112] = 6  # shown turned by a quarter: 400 wide, 640 high
    chosen = file(name="sideways.jpg") | {"buffer": encode(sideways, "JPEG", exif=exif)}
    choose(page, chosen)
    finished(page, (SIZE[1], SIZE[0]))
    expect_natural_size(page.locator("#picture"), (SIZE[1], SIZE[0]))
    expect_natural_size(overlay(page, "ai"), (SIZE[1], SIZE[0]))
    picture = page.locator("#picture").bounding_box()
    assert picture == overlay(page, "ai").bounding_box()
    assert picture is not None
    assert picture["height"] / picture["width"] == pytest.approx(SIZE[0] / SIZE[1], rel=0.01)


def test_legend_has_the_colours_of_the_overlays(page: Page) -> None:
    choose(page, file())
    finished(page)
    legend = page.locator(".ramp").evaluate("e => getComputedStyle(e).backgroundImage")
    anchors = [
        [float(number) for number in re.findall(r"[\d.]+", colour)]
        for colour in re.findall(r"rgba?\(([^)]*)\)", legend)
    ]
    mask = Image.fromarray(np.array([[0, 85, 170, 255]], np.uint8))
    for shown, (*colour, alpha) in zip(
        anchors, np.asarray(overlays.heat_map(mask))[0].tolist(), strict=True
    ):
        assert shown[:3] == colour
        assert [*shown, 1][3] == pytest.approx(alpha / 255, abs=0.01)


def test_format_that_the_browser_cannot_show(page: Page) -> None:
    choose(page, file(name="scan.tiff") | {"buffer": encode(photo(*SIZE), "TIFF")})
    finished(page)
    expect(page.locator("#viewer-note")).to_contain_text("cannot show this picture format")
    expect_natural_size(overlay(page, "ai"), SIZE)


def test_name_of_a_file_is_text(page: Page) -> None:
    choose(page, file(name=BREAKS_OUT))
    expect(page.locator("#detection-title")).to_have_text(BREAKS_OUT)
    finished(page)


# -- ways in -----------------------------------------------------------------------------------


_TRANSFER = """([bytes, name]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
    return transfer;
}"""


def test_drop(page: Page) -> None:
    transfer = page.evaluate_handle(_TRANSFER, [list(file(SMALL_SIZE)["buffer"]), "dropped.png"])
    hint = page.get_by_text("Drop the picture to check it")
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(hint).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(hint).to_be_hidden()
    expect(page.get_by_role("heading", name="dropped.png")).to_be_visible()
    finished(page, SMALL_SIZE)


def test_drop_of_something_else(page: Page) -> None:
    transfer = page.evaluate_handle("new DataTransfer()")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#intake-note")).to_contain_text("That was no file")


def test_paste(page: Page) -> None:
    page.evaluate(
        f"""argument => document.body.dispatchEvent(new ClipboardEvent("paste",
            {{clipboardData: ({_TRANSFER})(argument), bubbles: true}}))""",
        [list(file(SMALL_SIZE)["buffer"]), "pasted.png"],
    )
    expect(page.get_by_role("heading", name="pasted.png")).to_be_visible()
    finished(page, SMALL_SIZE)


def test_keyboard_alone(page: Page) -> None:
    def tab_to(target: Locator) -> None:
        for _ in range(10):
            page.keyboard.press("Tab")
            if target.evaluate("e => e === document.activeElement"):
                return
        pytest.fail("the control cannot be reached with the Tab key")

    # Interception begins with the first listener, and takes the browser a moment.
    page.on("filechooser", lambda _: None)
    chooser_input = page.get_by_label("Choose a picture")
    tab_to(chooser_input)
    expect(page.locator("label[for=file]")).to_have_css("outline-style", "solid")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(file())
    finished(page)
    tab_to(page.get_by_label("AI", exact=True))
    page.keyboard.press("ArrowRight")
    expect(overlay(page, "manipulation")).to_be_visible()
    tab_to(page.get_by_label("Overlay opacity"))
    page.keyboard.press("Home")
    expect(overlay(page, "manipulation")).to_have_css("opacity", "0")


# -- without a result --------------------------------------------------------------------------


def test_not_a_picture(page: Page, console: Console) -> None:
    console.provoked.append("415")
    choose(page, file(name="notes.png") | {"buffer": b"no picture at all"})
    problem = page.locator("#problem")
    expect(problem.get_by_role("heading")).to_have_text("The file is not an image")
    expect(problem).to_contain_text("none of JPEG, PNG")
    expect(fact(page, "Code")).to_have_text("not_an_image")
    expect(fact(page, "Request")).to_have_text(re.compile(r"^[0-9a-f]{32}$"))
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.get_by_role("status").last).to_contain_text("The file is not an image")


def test_picture_that_only_decoding_shows_broken(page: Page) -> None:
    whole = encode(photo(*SIZE), "JPEG")
    choose(page, file(name="cut.jpg") | {"buffer": whole[: len(whole) // 2]})
    problem = page.locator("#problem")
    expect(problem).to_contain_text("The picture could not be examined", timeout=_TIMEOUT)
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
    problem = page.locator("#problem")
    expect(problem).to_contain_text("The upload has too many bytes", timeout=_TIMEOUT)


def test_service_down_and_up_again(page: Page, console: Console) -> None:
    console.provoked.append("net::ERR_CONNECTION_REFUSED")
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    choose(page, file())
    expect(page.locator("#problem")).to_contain_text("The service cannot be reached")
    expect(page.locator("#notice")).to_contain_text("The service cannot be reached")
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    finished(page)
    expect(page.locator("#notice")).to_contain_text("Untrained model")


def test_each_state_in_words(page: Page, console: Console) -> None:
    console.provoked.append("503")
    choose(page, file())
    finished(page)
    pending = record(page) | {"status": "queued", "ai_probability": None, "masks": None}
    page.route("**/v1/detections/*", answer(pending))
    page.reload()
    phase = page.locator("#phase")
    expect(phase).to_have_text("Queued: waiting for a worker.")
    page.route("**/v1/detections/*", answer(pending | {"status": "processing"}))
    expect(phase).to_contain_text("Processing")
    away = {"title": "Redis is unavailable", "detail": "Cannot be reached.", "code": "x"}
    page.route("**/v1/detections/*", answer(away, 503))
    expect(page.locator("#trouble")).to_contain_text("Redis is unavailable")
    expect(page.locator("#trouble")).to_contain_text("Trying again")
    error = {"code": "detection_expired", "detail": "kept until expires_at"}
    page.route("**/v1/detections/*", answer(pending | {"status": "expired", "error": error}))
    expect(page.locator("#problem")).to_contain_text("This detection has expired")
    expect(page.locator("#problem")).to_contain_text("are deleted now")
    expect(fact(page, "Request")).to_have_text("request-17")


def test_cancel_ends_the_upload(page: Page) -> None:
    page.route("**/v1/detections", lambda route: None)
    choose(page, file())
    expect(page.locator("#phase")).to_contain_text("Uploading")
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#detection")).to_be_hidden()


# -- one picture after another -----------------------------------------------------------------


@pytest.mark.parametrize(
    "late", ["**/v1/detections", "**/v1/detections/*", "**/overlays/ai.png", "**/image"]
)
def test_answers_for_a_former_picture_come_too_late(page: Page, late: str) -> None:
    if late == "**/image":  # asked for only where the browser has no file at hand
        choose(page, file())
        finished(page)
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(late, hold_first)
    with page.expect_request(late):
        if late == "**/image":
            page.reload()
        else:
            choose(page, file())
    with page.expect_event("requestfailed", lambda request: request == held[0].request):
        choose(page, file(OTHER_SIZE, "second.png"))  # gives up what it waited for
    finished(page, OTHER_SIZE)
    with contextlib.suppress(Error):  # the browser has forgotten the request
        held[0].continue_()
    expect_natural_size(page.locator("#picture"), OTHER_SIZE)
    for layer in ("ai", "manipulation"):
        expect_natural_size(overlay(page, layer), OTHER_SIZE)
    expect(page.get_by_role("heading", level=2)).to_have_text("second.png")
    assert record(page)["image"]["width"] == OTHER_SIZE[0]


def test_permalink_opens_the_detection_again(
    page: Page, context: BrowserContext, console: Console
) -> None:
    choose(page, file())
    finished(page)
    score = summary(page).locator(".number").inner_text()
    page.get_by_role("link", name="Link to this detection").click()
    again = context.new_page()
    console.listen(again)
    again.goto(page.url)
    finished(again)
    expect(summary(again).locator(".number")).to_have_text(score)
    expect_natural_size(again.locator("#picture"), SIZE)
    expect_natural_size(overlay(again, "ai"), SIZE)


def test_back_and_forward(page: Page) -> None:
    choose(page, file())
    finished(page)
    choose(page, file(OTHER_SIZE, "second.png"))
    finished(page, OTHER_SIZE)
    page.go_back()
    finished(page)
    expect_natural_size(page.locator("#picture"), SIZE)
    page.go_forward()
    finished(page, OTHER_SIZE)


def test_permalink_to_nothing(page: Page, console: Console) -> None:
    console.provoked.append("404")
    page.goto(f"/#{'0' * 32}")
    expect(page.locator("#problem")).to_contain_text("There is no such detection")


# -- layout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 375, 768, 3840])
def test_nothing_scrolls_sideways(page: Page, console: Console, width: int) -> None:
    console.provoked.append("415")
    page.set_viewport_size({"width": width, "height": 800})

    def expect_fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    expect(page.locator("#notice")).to_be_visible()
    expect_fits()
    choose(page, file(name="a-very-long-name-without-any-space-" * 4 + ".png"))
    finished(page)
    expect_natural_size(overlay(page, "ai"), SIZE)
    expect_fits()
    choose(page, file(name="notes.png") | {"buffer": b"no picture at all"})
    expect(page.locator("#problem")).to_be_visible()
    expect_fits()


# -- API documentation -------------------------------------------------------------------------


def test_documentation_shows_the_operations(context: BrowserContext, console: Console) -> None:
    page = context.new_page()
    console.listen(page)
    page.goto("/docs")
    operations = page.locator(".opblock")
    expect(operations.first).to_be_visible()
    paths = page.request.get("/openapi.json").json()["paths"]
    expect(operations).to_have_count(sum(len(methods) for methods in paths.values()))
    operations.first.locator(".opblock-summary-control").click()
    expect(page.locator(".opblock-body").first).to_be_visible()
    page.get_by_role("button", name="Try it out").click()
    expect(page.get_by_role("button", name="Execute")).to_be_visible()
