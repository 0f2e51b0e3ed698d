"""The picture viewer: result, layers, regions and zoom."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from pictures.blending import heat_map
from pictures.overlays import COLORMAPS, Colormap
from tests.browser.pages import (
    OTHER_SIZE,
    REGION,
    SIZE,
    SLOW,
    Console,
    MadeList,
    choose,
    expect_held,
    expect_natural_size,
    fact,
    file,
    finished,
    headline,
    made_record,
    open_made,
    overlay,
    place,
    places,
    record,
    row,
    rows,
    settle,
    summary,
)
from tests.conftest import encode, photo


def masks(
    ai: list[dict] | None = None, manipulation: list[dict] | None = None, area: float = 0.06
) -> dict:
    """Of `made_record(0)`, with these regions."""
    made = made_record(0)["masks"]
    for layer, regions in (("ai", ai or []), ("manipulation", manipulation or [])):
        made[layer] |= {"regions": regions, "area_fraction": area if regions else 0.0}
    return made


def pixels(element: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"))


def ground(element: Locator) -> tuple[int, ...]:
    """The colour that most of it has."""
    colours, counts = np.unique(pixels(element).reshape(-1, 3), axis=0, return_counts=True)
    return tuple(colours[counts.argmax()].tolist())


def test_result_of_a_picture(page: Page) -> None:
    choose(page, file())
    finished(page)
    found = record(page)
    expect(page.get_by_role("heading", name="photo.png")).to_be_visible()
    shown = headline(page).locator(".number").inner_text()
    assert float(re.sub(r"[^\d.]", "", shown)) == pytest.approx(
        found["ai_probability"] * 100, abs=0.1
    )
    verdicts = {
        "authentic": "No sign of AI generation found",
        "uncertain": "Uncertain",
        "ai_generated": "Signs of AI generation found",
    }
    verdict = verdicts[found["verdict"]]
    if "marks_contradict_score" in found["notes"]:
        verdict = "Low score, but parts are marked as AI"
    manipulated = "yes" if found["manipulated"] else "no"
    headings = headline(page).get_by_role("heading")
    expect(headings).to_have_text([verdict, f"Manipulated: {manipulated}"])
    expect(fact(page, "Examined")).to_contain_text("The whole picture")
    expect(fact(page, "Name").first).to_have_text(found["model"]["name"])
    expect(fact(page, "SHA-256")).to_have_text(found["image"]["sha256"])
    for term in ("Scale", "Kept until", "Total"):
        expect(fact(page, term)).not_to_be_empty()
    for layer in ("ai", "manipulation"):
        expect_natural_size(overlay(page, layer), SIZE)
    expect(page.locator("#announcer")).to_contain_text("finished. AI score")


def test_marks_that_contradict_the_score_are_reported(alone: Page) -> None:
    marked = masks(ai=[REGION, REGION, REGION], area=0.316)
    open_made(alone, 0, masks=marked, notes=["marks_contradict_score"])
    expect(headline(alone)).not_to_contain_text("No sign of AI")
    expect(summary(alone).locator(".note")).to_contain_text(
        "below the threshold, but parts of it are marked as AI: 3 regions, 31.6 % of the picture"
    )
    expect(alone.locator("#announcer")).to_contain_text("parts are marked as AI")
    expect(row(alone, "picture 0.jpg")).to_contain_text("Low, but marked")
    expect(row(alone, "picture 0.jpg")).to_have_attribute("data-tone", "contradicted")
    colours = [
        alone.locator(place).evaluate("e => getComputedStyle(e).color")
        for place in ("#headline .verdict", ".row .figure")
    ]
    assert colours[0] == colours[1]


def test_pages_of_text_are_reported(alone: Page) -> None:
    open_made(alone, 2, notes=["mostly_text", "a note of a later version"])
    expect(summary(alone).locator(".note")).to_contain_text("The picture is mostly text.")


def test_agreeing_marks_need_no_warning(alone: Page) -> None:
    open_made(alone, 0, masks=masks())
    verdict = headline(alone).get_by_role("heading").first
    expect(verdict).to_have_text("No sign of AI generation found")
    expect(summary(alone)).to_contain_text("No part of the picture is marked as AI.")
    expect(summary(alone).locator(".note")).to_have_count(0)


def test_score_of_an_untrained_model_is_marked(alone: Page) -> None:
    open_made(alone, 7, model={"name": "gamma", "version": "untrained"})
    expect(headline(alone).locator(".score .badge")).to_have_text("untrained")
    expect(summary(alone)).to_contain_text("score and verdict mean nothing")
    expect(row(alone, "picture 7.jpg")).to_contain_text("Untrained model")


def test_layers_and_opacity(page: Page) -> None:
    choose(page, file())
    finished(page)
    ai, manipulation = overlay(page, "ai"), overlay(page, "manipulation")
    expect_natural_size(ai, SIZE)
    expect(ai).to_be_visible()
    expect(manipulation).to_be_hidden()
    slider = page.get_by_label("Layer opacity")
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
    page.locator(".choice").get_by_text("Original", exact=True).click()
    expect(ai).to_be_hidden()
    expect(manipulation).to_be_hidden()
    expect(slider).to_be_hidden()
    expect(page.locator(".ramp")).to_be_hidden()


def test_layer_that_has_regions_opens_first(alone: Page) -> None:
    """Each layer shows its number of regions, and another one can be chosen."""
    nothing, marked = made_record(1), made_record(4)
    nothing["masks"] = masks(manipulation=[REGION, REGION])
    marked["masks"] = masks(ai=[REGION], manipulation=[REGION])
    MadeList(alone, [nothing, marked])
    alone.reload()
    row(alone, "picture 1.jpg").click()
    expect(overlay(alone, "manipulation")).to_be_visible()
    counts = alone.locator("#tools [data-count]").evaluate_all(
        "all => all.map(e => getComputedStyle(e, '::after').content.replace(/\\D/g, ''))"
    )
    assert counts == ["0", "2"]
    alone.keyboard.press("a")
    expect(overlay(alone, "ai")).to_be_visible()
    row(alone, "picture 4.jpg").click()
    expect(overlay(alone, "ai")).to_be_visible()
    expect(alone.get_by_title(re.compile(r"^1\sregion$"))).to_have_count(2)


def test_keys_choose_what_is_shown(alone: Page) -> None:
    open_made(alone, 4)
    ai, manipulation = overlay(alone, "ai"), overlay(alone, "manipulation")
    alone.keyboard.press("m")
    expect(manipulation).to_be_visible()
    alone.keyboard.press("o")
    expect(manipulation).to_be_hidden()
    alone.keyboard.press("o")
    expect(manipulation).to_be_visible()
    alone.keyboard.press("a")
    expect(ai).to_be_visible()
    alone.keyboard.press("a")
    expect(ai).to_be_hidden()
    alone.keyboard.press("a")
    expect(alone.locator(".mark")).to_have_count(1)
    alone.keyboard.press("b")
    expect(alone.locator(".mark")).to_have_count(0)
    alone.keyboard.press("s")
    expect(alone.get_by_role("group", name="Original")).to_be_visible()
    alone.keyboard.press("z")
    expect(alone.locator("#zoom-value")).not_to_have_text("Fit")
    alone.keyboard.press("z")
    expect(alone.locator("#zoom-value")).to_have_text("Fit")


def test_keys_by_their_place_where_another_script_is_typed(alone: Page) -> None:
    open_made(alone, 4)
    manipulation = overlay(alone, "manipulation")
    keyboard = alone.context.new_cdp_session(alone)

    def press(key: str, code: str) -> None:
        for kind in ("keyDown", "keyUp"):
            keyboard.send("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": code})

    expect(manipulation).to_be_hidden()
    for key in ("ь", "μ", "\N{CYRILLIC CAPITAL LETTER SOFT SIGN}", "צ"):  # the last one: Hebrew
        press(key, "KeyM")
        expect(manipulation).to_be_visible()
        press("o", "KeyL")  # what a Latin layout has there counts
        expect(manipulation).to_be_hidden()
        press("ü", "KeyM")
        press("м", "KeyV")
        press("o", "KeyL")
        expect(manipulation).to_be_visible()
        press("m", "Semicolon")
        expect(manipulation).to_be_hidden()


def test_overlay_lies_exactly_on_the_picture(page: Page) -> None:
    sideways = photo(*SIZE)
    exif = sideways.getexif()
    exif[0x0112] = 6  # shown turned by a quarter: 400 wide, 640 high
    choose(page, file(name="sideways.jpg") | {"buffer": encode(sideways, "JPEG", exif=exif)})
    finished(page, (SIZE[1], SIZE[0]))
    expect_natural_size(page.locator("#picture"), (SIZE[1], SIZE[0]))
    expect_natural_size(overlay(page, "ai"), (SIZE[1], SIZE[0]))
    picture, ai = places(page, "#picture, .overlay[data-layer=ai]")
    assert picture == ai
    assert picture["height"] / picture["width"] == pytest.approx(SIZE[0] / SIZE[1], rel=0.01)


def test_stage_has_the_shape_of_its_picture_when_the_record_comes_first(alone: Page) -> None:
    """The record, the image's load event and the next frame come in this order."""
    width, height = OTHER_SIZE
    sent = made_record(1, image=made_record(1)["image"] | {"width": width, "height": height})
    MadeList(alone, [made_record(0), sent])
    alone.reload()
    row(alone, "picture 0.jpg").click()
    expect_natural_size(overlay(alone, "ai"), SIZE)
    held: list[Route] = []
    alone.route("**/late.png", lambda route: held.append(route))
    alone.route("**/v1/detections", lambda route: route.fulfill(json=sent))
    alone.evaluate(
        """() => {
            window.drawings = [];
            window.requestAnimationFrame = (draw) => window.drawings.push(draw);
            const real = URL.createObjectURL;
            URL.createObjectURL = (data) => data instanceof File ? "/late.png" : real(data);
        }"""
    )
    chosen = file(OTHER_SIZE, "tall.png")
    with alone.expect_response("**/v1/detections"):
        choose(alone, chosen)
    expect_held(alone, held, 1)
    held[0].fulfill(body=chosen["buffer"], content_type="image/png")
    expect(alone.locator("#picture")).to_be_visible()
    alone.evaluate("while (drawings.length > 0) drawings.shift()()")
    expect(alone.locator("#detection-title")).to_have_text("tall.png")
    expect(summary(alone)).to_be_visible()
    stage = place(alone.locator("#stage"))
    assert stage["width"] / stage["height"] == pytest.approx(width / height, rel=0.01)


def test_boxes_lie_on_the_regions(alone: Page) -> None:
    open_made(alone, 4)
    stage, mark = places(alone, "#stage, .mark")
    x, y, width, height = REGION["box"]
    scale = stage["width"] / SIZE[0]
    assert mark["x"] - stage["x"] == pytest.approx(x * scale, abs=1)
    assert mark["y"] - stage["y"] == pytest.approx(y * scale, abs=1)
    assert mark["width"] == pytest.approx(width * scale, abs=1)
    assert mark["height"] == pytest.approx(height * scale, abs=1)
    alone.get_by_role("button", name="6.0 % of the picture").last.click()
    expect(overlay(alone, "manipulation")).to_be_visible()
    expect(alone.locator(".mark")).to_have_class(re.compile("pointed"))


def test_boxes_can_be_seen_and_numbers_read_at_every_edge(alone: Page) -> None:
    width, height = SIZE
    corner = {"box": [width - 12, height - 12, 12, 12], "area": 0.001, "score": 0.5}
    top = {"box": [width - 12, 0, 12, 12], "area": 0.001, "score": 0.5}
    whole = {"box": [0, 0, width, height], "area": 1.0, "score": 0.5}
    others = [corner | {"box": [width - 40, y, 12, 12]} for y in range(40, 360, 40)]
    open_made(alone, 0, masks=masks(ai=[whole, corner, top, *others, corner, corner]))
    stage, *marks = places(alone, "#stage, .mark, .mark span")
    assert len(marks) == 2 * (5 + len(others))
    for box, number in zip(marks[::2], marks[1::2], strict=True):
        assert number["x"] >= stage["x"]
        assert number["y"] >= stage["y"] - 1
        assert number["x"] + number["width"] <= stage["x"] + stage["width"] + 1
        assert number["y"] + number["height"] <= stage["y"] + stage["height"] + 1
        if box["height"] < stage["height"] / 2:
            above = number["y"] + number["height"] <= box["y"] + 2
            assert above or number["y"] >= box["y"] + box["height"] - 2
    picture = pixels(alone.locator("#stage"))
    edge = picture[3:-3, -4:].reshape(-1, 3)  # of the box around the whole picture
    assert (edge.max(axis=1) < 40).sum() > picture.shape[0] / 2, "no dark line"
    assert (edge.min(axis=1) > 215).sum() > picture.shape[0] / 2, "no light line"


def test_region_is_brought_into_sight(alone: Page) -> None:
    alone.set_viewport_size({"width": 375, "height": 812})
    open_made(alone, 4)
    region = alone.get_by_role("button", name="6.0 % of the picture").last
    region.scroll_into_view_if_needed()
    expect(alone.locator("#stage")).not_to_be_in_viewport()
    region.click()
    expect(alone.locator(".mark.pointed")).to_be_in_viewport(ratio=1)


def test_picture_comes_back_after_an_outage(alone: Page, console: Console) -> None:
    console.provoked.append("ERR_FAILED")
    MadeList(alone, [made_record(0)])
    alone.reload()
    expect(rows(alone)).to_have_count(1)
    pictures = re.compile(r"/(image|overlays/\w+\.png)\?.*size=2048")
    alone.route(pictures, lambda route: route.abort())
    row(alone, "picture 0.jpg").click()
    note = alone.locator("#viewer-note")
    for what in ("the picture", "the AI layer", "the manipulation layer"):
        expect(note).to_contain_text(what)
    assert note.inner_text().count("The service cannot be reached") == 1
    expect(alone.locator(".mark")).to_have_count(0)
    above, below = places(alone, "#viewer-note, #panes")
    assert above["y"] < below["y"]
    alone.unroute(pictures)
    expect_natural_size(alone.locator("#picture"), SIZE)
    expect_natural_size(overlay(alone, "ai"), SIZE)
    expect(note).to_be_hidden()
    expect(alone.locator(".mark")).to_have_count(1)


def test_a_picture_too_small_to_judge_has_no_score(alone: Page) -> None:
    nothing = dict.fromkeys(("ai_probability", "verdict", "manipulated", "masks", "thresholds"))
    MadeList(alone, [made_record(0), made_record(1, not_judged="too_small", **nothing)])
    alone.reload()
    expect(row(alone, "picture 1.jpg")).to_contain_text("Too small to judge")
    row(alone, "picture 1.jpg").click()
    expect(alone.locator("#problem-title")).to_have_text("Too small to judge")
    expect(alone.locator("#problem-detail")).to_contain_text(f"{SIZE[0]} × {SIZE[1]} pixels")
    expect_natural_size(alone.locator("#picture"), SIZE)
    expect(alone.locator("#summary")).to_be_hidden()
    row(alone, "picture 0.jpg").click()
    expect(alone.locator("#problem")).to_be_hidden()
    expect(alone.locator("#summary")).to_be_visible()


@pytest.mark.parametrize(("kind", "noun"), [("GIF", "Frame"), ("TIFF", "Page")])
def test_result_says_which_frame_was_examined(alone: Page, kind: str, noun: str) -> None:
    made = made_record(0)
    made["image"] |= {"format": kind, "frames": 12}
    made["view"] |= {"frame": 1}
    MadeList(alone, [made])
    alone.reload()
    row(alone, "picture 0.jpg").click()
    expect(fact(alone, "Examined")).to_have_text(f"{noun} 1 of 12, in 2 tiles")
    expect(alone.locator("#details")).to_contain_text(f"{noun} 1 of 12 was examined; the file's")


def test_states_are_visible_in_forced_colours(alone: Page) -> None:
    page = alone
    page.emulate_media(forced_colors="active")
    MadeList(page, [made_record(0), made_record(4)])
    page.reload()
    row(page, "picture 0.jpg").click()
    expect_natural_size(overlay(page, "ai"), SIZE)
    settle(page)
    page.mouse.move(0, 0)
    labels = page.locator("#tools .choice label > span")
    assert ground(row(page, "picture 0.jpg")) != ground(row(page, "picture 4.jpg"))
    assert ground(labels.nth(0)) != ground(labels.nth(1)), "layers"
    assert ground(labels.nth(3)) != ground(labels.nth(4)), "toggles"
    filters = page.locator("#filters label:visible > span")
    assert ground(filters.nth(0)) != ground(filters.nth(1))
    for scale in (".meter", ".ramp"):
        middle = pixels(page.locator(scale))
        across = middle[middle.shape[0] // 2]
        assert len({tuple(colour) for colour in across.tolist()}) > 3, scale


def test_legend_has_the_colours_of_the_overlays(alone: Page) -> None:
    open_made(alone, 4)
    legend = alone.locator(".ramp").evaluate("e => getComputedStyle(e).backgroundImage")
    anchors = [
        [float(number) for number in re.findall(r"[\d.]+", colour)]
        for colour in re.findall(r"rgba?\(([^)]*)\)", legend)
    ]
    mask = Image.fromarray(np.array([[0, 85, 170, 255]], np.uint8))
    colours = COLORMAPS[Colormap.HEAT].tobytes()
    for shown, (*colour, alpha) in zip(
        anchors, np.asarray(heat_map(mask, colours))[0].tolist(), strict=True
    ):
        assert shown[:3] == colour
        assert [*shown, 1][3] == pytest.approx(alpha / 255, abs=0.01)


def test_format_that_no_browser_shows(page: Page) -> None:
    """The service renders it."""
    choose(page, file(name="scan.tiff", image_format="TIFF"))
    finished(page)
    expect_natural_size(page.locator("#picture"), SIZE)
    expect_natural_size(overlay(page, "ai"), SIZE)
    expect(page.locator("#viewer-note")).to_be_hidden()


def test_uncovered_parts_are_reported(alone: Page) -> None:
    open_made(alone, 4, view={"mode": "center", "tiles": 1, "scale": 0.5})
    expect(fact(alone, "Examined")).to_have_text("The centre of the picture only, in 1 tile")
    expect(fact(alone, "Scale")).to_have_text("shrunk to 50 % of its size")
    expect(alone.locator("#details")).to_contain_text("Only the centre was examined")
    expect(alone.locator("#details")).to_contain_text("examined at 50 % of its resolution")


def test_a_glance_has_no_layers(alone: Page) -> None:
    view = {"mode": "glance", "tiles": 0, "glances": 1, "scale": 0.25}
    made = made_record(4, view=view, masks=None, manipulated=None)
    MadeList(alone, [made])
    alone.reload()
    row(alone, made["ref_id"]).click()
    expect(fact(alone, "Examined")).to_have_text("The whole picture, at a glance")
    expect(alone.locator("#details")).to_contain_text("examined at 25 % of its resolution")
    expect(alone.locator("#details")).to_contain_text("does not show which parts")
    expect(alone.locator("#tools")).to_be_hidden()
    expect(alone.locator("#picture")).to_be_visible()
    expect(headline(alone)).not_to_contain_text("Manipulated")
    expect(alone.get_by_role("button", name="Mask", exact=True)).to_have_count(0)
    expect(alone.get_by_role("button", name="Record", exact=True)).to_be_visible()


@pytest.mark.parametrize("late", ["**/overlays/ai.png*", "**/image?size=2048"])
def test_late_responses_for_an_earlier_picture_are_ignored(page: Page, late: str) -> None:
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(late, hold_first)
    with page.expect_request(late):
        choose(page, file())
    choose(page, file(OTHER_SIZE, "second.png"))
    finished(page, OTHER_SIZE)
    expect_natural_size(page.locator("#picture"), OTHER_SIZE)
    for layer in ("ai", "manipulation"):
        expect_natural_size(overlay(page, layer), OTHER_SIZE)
    with page.expect_response(held[0].request.url):
        held[0].continue_()
    expect(row(page, "photo.png").locator(".figure")).not_to_be_empty(timeout=SLOW)
    expect_natural_size(page.locator("#picture"), OTHER_SIZE)
    expect_natural_size(overlay(page, "ai"), OTHER_SIZE)
    expect(page.locator("#detection-title")).to_have_text("second.png")
