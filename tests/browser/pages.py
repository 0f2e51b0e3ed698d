"""Helpers of the browser tests."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cache

from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    FloatRect,
    Locator,
    Page,
    Route,
    ViewportSize,
    expect,
)

from tests.browser.reviews import MadeReviews
from tests.conftest import encode, photo

SIZE = (640, 400)
WINDOW: ViewportSize = {"width": 1280, "height": 800}
OTHER_SIZE = (300, 520)
SMALL_SIZE = (64, 48)
MANY = 400  # pictures
TIMEOUT = 30_000  # ms
SLOW = 90_000  # ms; a detection, or the documentation, on a busy machine
_REPORT_VIOLATIONS = (
    "addEventListener('securitypolicyviolation', event =>"
    " console.error('CSP', event.violatedDirective, event.blockedURI, event.sourceFile))"
)

_EMPTY = '<link rel="icon" href="data:,">'  # without an icon, browsers ask for /favicon.ico
FilePayload = dict[str, str | bytes]

TRANSFER = """(files) => {
    const transfer = new DataTransfer();
    for (const [bytes, name] of files) {
        transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
    }
    return transfer;
}"""
"""JavaScript that makes a DataTransfer of `[[bytes, name], …]`."""


class Console:
    """Errors in the browser console; tests declare those that they expect."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.provoked: list[str] = []

    def listen(self, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", self._hear_error)

    def leave(self, page: Page) -> None:
        page.remove_listener("console", self._hear)
        page.remove_listener("pageerror", self._hear_error)

    def _hear_error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def unexpected(self) -> list[str]:
        return [c for c in self.complaints if not any(part in c for part in self.provoked)]


def new_context(
    browser: Browser, url: str, size: ViewportSize = WINDOW, *, has_touch: bool = False
) -> BrowserContext:
    made = browser.new_context(
        base_url=url, viewport=size, has_touch=has_touch, is_mobile=has_touch
    )
    made.set_default_timeout(TIMEOUT)
    made.add_init_script(_REPORT_VIOLATIONS)
    return made


def unload(page: Page) -> None:
    """Put an empty document at the page's address, without storage and routes."""
    page.unroute_all()
    page.route("**/*", lambda route: route.fulfill(body=_EMPTY, content_type="text/html"))
    page.goto("/")
    page.unroute_all()
    page.evaluate("localStorage.clear(); sessionStorage.clear()")


def make_new(page: Page) -> None:
    """Unload a tab and undo what tests did to it, except for clocks and listeners."""
    unload(page)
    page.context.clear_permissions()
    page.set_viewport_size(WINDOW)
    page.emulate_media(color_scheme="null", reduced_motion="null", forced_colors="null")
    page.mouse.move(0, 0)


def file(
    size: tuple[int, int] = SIZE, name: str = "photo.png", image_format: str = "PNG", seed: int = 0
) -> FilePayload:
    data = encode(photo(*size, seed), image_format)
    return {"name": name, "mimeType": f"image/{image_format.lower()}", "buffer": data}


NO_PICTURE: FilePayload = {
    "name": "notes.png",
    "mimeType": "image/png",
    "buffer": b"no picture at all",
}


def choose(page: Page, *chosen: FilePayload) -> None:
    page.get_by_label("Choose pictures").set_input_files(list(chosen))


def summary(page: Page) -> Locator:
    return page.locator("#summary")


def finished(page: Page, size: tuple[int, int] = SIZE) -> None:
    expect(summary(page)).to_be_visible(timeout=SLOW)
    expect(fact(page, "Size")).to_have_text(f"{size[0]} × {size[1]} pixels")


def headline(page: Page) -> Locator:
    return page.locator("#headline")


def fact(page: Page, term: str) -> Locator:
    return page.locator("dl > div", has=page.get_by_text(term, exact=True)).locator("dd")


def overlay(page: Page, layer: str) -> Locator:
    return page.locator(f".overlay[data-layer={layer}]")


def rows(page: Page) -> Locator:
    return page.locator("#rows").get_by_role("option")


def row(page: Page, name: str) -> Locator:
    return rows(page).filter(has=page.get_by_text(name, exact=True))


def names(page: Page) -> list[str]:
    return page.locator(".row .name").all_text_contents()


def expect_names(page: Page, expected: Sequence[str]) -> None:
    expect(page.locator(".row .name")).to_have_text(expected)


def expect_held(page: Page, held: Sequence[Route], count: int) -> None:
    """Wait until so many requests have been taken, whose answers a test holds back."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while len(held) < count:
        assert time.monotonic() < deadline, f"{len(held)} of {count} requests"
        page.wait_for_timeout(10)  # in which Playwright calls the handlers


def pick_filter(page: Page, label: str) -> None:
    page.locator("#filters label").filter(has_text=label).click()


def expect_natural_size(image: Locator, size: tuple[int, int]) -> None:
    expect(image).to_have_js_property("naturalWidth", size[0])
    expect(image).to_have_js_property("naturalHeight", size[1])


def identity(page: Page) -> str:
    expect(page).to_have_url(re.compile(r"#/[0-9a-f]{32}$"))
    return page.url.rpartition("/")[2]


def record(page: Page) -> dict:
    return page.request.get(f"/v1/detections/{identity(page)}").json()


def answer(
    body: object, status: int = 200, retry_after: int | None = None
) -> Callable[[Route], None]:
    """Handler that gives the same response to every request."""
    headers = {"X-Request-ID": "request-17"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return lambda route: route.fulfill(status=status, json=body, headers=headers)


def problem(title: str, code: str, detail: str = "That is how it is.") -> dict:
    return {"title": title, "detail": detail, "code": code, "request_id": "request-17"}


FACTS = {
    "name": "gamma",
    "version": "2026.1",
    "trained": True,
    "backbone": "mit-b0",
    "parameters": 4_123_456,
    "crop_size": 512,
    "thresholds": {"uncertain": 0.35, "ai_generated": 0.65, "mask": 0.5, "manipulated_area": 0.02},
    "notice": None,
    "search_links": True,
}

OLDEST_FIRST = "localStorage.setItem('gamma-order', 'oldest')"
"""JavaScript that chooses the order of the list, as a user would have before."""

REGION = {"box": [64, 40, 160, 100], "area": 0.06, "score": 0.87}


def made_record(number: int, **changes: object) -> dict:
    """A succeeded record whose score depends on its number."""
    identity = f"{number:032x}"
    score = (number * 37 % 100) / 100
    verdict = "authentic" if score < 0.35 else "uncertain" if score < 0.65 else "ai_generated"
    manipulated = number % 4 == 0

    def mask(layer: str, area: float) -> dict:
        path = f"/v1/detections/{identity}"
        return {
            "area_fraction": area,
            "max": 0.97,
            "regions": [REGION] if area > 0 else [],
            "mask_url": f"{path}/masks/{layer}.png",
            "overlay_url": f"{path}/overlays/{layer}.png",
        }

    made = {
        "id": identity,
        "ref_id": f"picture {number}.jpg",
        "status": "succeeded",
        "ai_probability": score,
        "verdict": verdict,
        "manipulated": manipulated,
        "frames": None,
        "notes": [],
        "thresholds": {
            "uncertain": 0.35,
            "ai_generated": 0.65,
            "mask": 0.5,
            "manipulated_area": 0.02,
        },
        "masks": {"ai": mask("ai", 0.06), "manipulation": mask("manipulation", manipulated * 0.06)},
        "image": {
            "width": SIZE[0],
            "height": SIZE[1],
            "format": "JPEG",
            "bytes": 50_000,
            "sha256": f"{number:064x}",
        },
        "view": {"mode": "tiled", "tiles": 2, "scale": 0.8},
        "model": {"name": "gamma", "version": "2026.1"},
        "timings": {"queued": 0.1, "decode": 0.01, "forward": 0.2, "encode": 0.01, "total": 0.3},
        "created_at": f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "finished_at": "2026-01-01T12:00:00Z",
        "expires_at": "2036-01-02T00:00:00Z",
        "error": None,
        "cached": False,
    }
    return made | changes


@cache
def _picture() -> bytes:
    return encode(photo(*SIZE), "JPEG", quality=30)


@cache
def _layer() -> bytes:
    return encode(Image.new("RGBA", SIZE, (200, 40, 40, 90)), "PNG")


def _has_ended(record: dict) -> bool:
    return record["status"] not in ("queued", "processing")


class MadeList:
    """Answers for the service with made records: their list, their pictures and heat maps."""

    def __init__(self, page: Page, records: Sequence[dict]) -> None:
        self.records = {made["id"]: made for made in records}
        self.thumbnails: set[str] = set()
        self.bytes = 0  # of all lists that were sent
        self.unchanged = 0  # lists that were not sent again
        self._ended = [name for name, made in self.records.items() if _has_ended(made)]
        page.route("**/v1/events", self.events)
        page.route("**/v1/detections?**", self.list)
        page.route("**/v1/detections/*/image?**", self._image)
        page.route("**/v1/detections/*/image", self._image)
        page.route("**/v1/detections/*/overlays/**", self._overlay)
        self.reviews = MadeReviews(page, self.records)

    def list(self, route: Route) -> None:
        url = route.request.url
        asked = re.search(r"ids=([^&]*)", url)
        if asked:
            ids = asked[1].split(",")
            found = [self.records[i] for i in ids if i in self.records]
            missing = [i for i in ids if i not in self.records]
            self._fulfill(route, {"detections": found, "next": None, "missing": missing})
            return
        start = int((re.search(r"cursor=(\d+)", url) or [0, 0])[1])
        newest_first = list(self.records.values())[::-1]
        more = start + 100 < len(newest_first)
        following = f"/v1/detections?limit=100&cursor={start + 100}" if more else None
        page = newest_first[start : start + 100]
        self._fulfill(route, {"detections": page, "next": following, "missing": []})

    def events(self, route: Route) -> None:
        """The ends since the last event; the stream is closed at once."""
        known = set(self._ended)
        ends = [name for name, made in self.records.items() if _has_ended(made)]
        self._ended += [name for name in ends if name not in known]
        last = route.request.headers.get("last-event-id", "")
        start = int(last.partition("-")[0]) if last else len(self._ended)
        body = f"id: {start}-0\nretry: 1000\n\n"
        for place, name in enumerate(self._ended[start:], start + 1):
            data = json.dumps({"id": name, "status": "succeeded"})
            body += f"id: {place}-0\nevent: detection\ndata: {data}\n\n"
        route.fulfill(body=body, content_type="text/event-stream")

    def _fulfill(self, route: Route, answer: dict) -> None:
        body = json.dumps(answer)
        tag = f'"{zlib.crc32(body.encode())}"'
        if route.request.headers.get("if-none-match") == tag:
            self.unchanged += 1
            route.fulfill(status=304, headers={"ETag": tag})
            return
        self.bytes += len(body)
        route.fulfill(body=body, content_type="application/json", headers={"ETag": tag})

    def _image(self, route: Route) -> None:
        if "size=256" in route.request.url:
            self.thumbnails.add(route.request.url)
        route.fulfill(body=_picture(), content_type="image/jpeg")

    def _overlay(self, route: Route) -> None:
        route.fulfill(body=_layer(), content_type="image/png")


def open_made(page: Page, number: int, **changes: object) -> None:
    """Open a made record with its AI layer."""
    made = made_record(number, **changes)
    MadeList(page, [made])
    page.reload()
    row(page, made["ref_id"]).click()
    expect_natural_size(overlay(page, "ai"), SIZE)
    settle(page)


def settle(page: Page) -> None:
    """Wait for the texts and buttons around the picture, after which it keeps its place."""
    expect(headline(page).get_by_role("heading").first).to_be_visible()
    expect(page.locator("#decision-state")).not_to_be_empty()
    expect(page.locator("#compare")).to_be_enabled()


def place(element: Locator) -> FloatRect:
    found = element.bounding_box()
    assert found is not None
    return found


def places(page: Page, selector: str) -> list[FloatRect]:
    """Of all elements that match, at the same moment, in the order of the document."""
    return page.locator(selector).evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect().toJSON())"
    )


def queued_record(number: int) -> dict:
    unknown = {"ai_probability": None, "verdict": None, "masks": None, "timings": None}
    return made_record(number, status="queued", finished_at=None, **unknown)


def listed(page: Page, count: int) -> MadeList:
    made = MadeList(page, [made_record(number) for number in range(count)])
    page.evaluate(OLDEST_FIRST)
    page.reload()
    expect(rows(page)).to_have_count(count)
    return made
