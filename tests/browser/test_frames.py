"""Animations and files of several pages."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.pages import (
    SLOW,
    MadeList,
    choose,
    fact,
    made_record,
    open_made,
    queued_record,
    row,
)
from tests.conftest import encode, photo

IMAGE = made_record(0)["image"]
VIEW = made_record(0)["view"]
FRAMES = [
    {
        "frame": number,
        "time_ms": time,
        "ai_probability": score,
        "verdict": verdict,
        "manipulated": number == 1,
    }
    for number, time, score, verdict in (
        (1, 0, 0.2, "authentic"),
        (7, 1250, 0.74, "ai_generated"),
        (12, 2400, 0.5, "uncertain"),
    )
]


def test_one_frame_of_an_animation_was_examined(alone: Page) -> None:
    open_made(alone, 0, image=IMAGE | {"format": "GIF", "frames": 12}, view=VIEW | {"frame": 1})
    expect(fact(alone, "Examined")).to_have_text(re.compile("^Frame 1 of 12, in 2\\stiles$"))
    expect(alone.locator("#details")).to_contain_text(
        "Frame 1 of 12 was examined; the file's other pictures were not."
    )


def test_one_page_of_a_document_was_examined(alone: Page) -> None:
    open_made(alone, 0, image=IMAGE | {"format": "TIFF", "frames": 3}, view=VIEW | {"frame": 2})
    expect(fact(alone, "Examined")).to_have_text(re.compile("^Page 2 of 3, in"))


def test_examined_frames_and_which_of_them_is_shown(fresh: Page) -> None:
    fresh.clock.install()
    queued = queued_record(0)
    made = MadeList(fresh, [queued])
    fresh.reload()
    with fresh.expect_request("**/image?size=2048"):
        row(fresh, "picture 0.jpg").click()
    made.records[queued["id"]] = made_record(
        0,
        frames=FRAMES,
        image=IMAGE | {"format": "GIF", "frames": 12},
        view=VIEW | {"frame": 7},
    )
    with fresh.expect_request("**/image?size=2048&frame=7"):
        fresh.clock.run_for(4000)
    expect(fact(fresh, "Examined")).to_have_text(re.compile("^3\\sframes of 12, in"))
    expect(fresh.locator("#details")).to_contain_text(
        "Score, verdict, layers and regions are those of frame 7 of 12, which has the highest "
        "score. The file's other pictures were not examined."
    )
    expect(fresh.locator(".frames li")).to_have_text(
        [
            re.compile("^Frame 1, at 0.0\\ss: 20.0\\s%, No sign of AI generation found, manip"),
            re.compile("^Frame 7, at 1.3\\ss: 74.0\\s%, Signs of AI generation found, shown above"),
            re.compile("^Frame 12, at 2.4\\ss: 50.0\\s%, Uncertain$"),
        ]
    )
    pictures = fresh.locator(".frames img")
    for number in range(len(FRAMES)):
        expect(pictures.nth(number)).not_to_have_js_property("naturalWidth", 0)


def test_frames_are_blurred_with_the_picture(alone: Page) -> None:
    image = IMAGE | {"format": "GIF", "frames": 12}
    open_made(alone, 0, frames=FRAMES, image=image, view=VIEW | {"frame": 7})
    alone.get_by_text("Blur", exact=True).click()
    frame = alone.locator(".frames img").first
    expect(frame).to_have_css("filter", re.compile("blur"))
    alone.keyboard.press("v")
    expect(frame).to_have_css("filter", "none")


def test_frames_of_an_upload(page: Page) -> None:
    first, *others = (photo(160, 120, seed) for seed in range(3))
    data = encode(first, "GIF", save_all=True, append_images=others, duration=200)
    choose(page, {"name": "moving.gif", "mimeType": "image/gif", "buffer": data})
    expect(page.locator(".frames li")).to_have_count(3, timeout=SLOW)
    expect(fact(page, "Examined")).to_contain_text("frames of 3")
