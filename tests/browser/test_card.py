"""The model card."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from app.contract.models import Measured, MeasuredRow, ModelFacts
from model.checkpoint import BUILT_IN, RESULTS_FILE
from pictures.findings import Thresholds
from tests.browser.pages import answer

_UNROUNDED = 0.7035186592279647


@pytest.fixture
def page(alone: Page) -> Page:
    return alone


def measured_row(pictures: str) -> MeasuredRow:
    return MeasuredRow(
        pictures=pictures,
        n=279,
        auc=0.7483565204097233,
        auc_interval=(_UNROUNDED, 0.7884352966756644),
        tpr_at_fpr_1=0.12186379928315412,
        tpr_at_fpr_5=0.35125448028673834,
    )


MEASURED = Measured(
    conditions="set `test`, at most 256 pixels a side, JPEG 96, view center",
    photographs=211,
    false_alarms=0.03317535545023697,
    false_alarms_interval=(0.016161322806111125, 0.06688344387267289),
    rows=[
        measured_row("all generators"),
        measured_row("gemini-nano-banana_or_other_2025H2"),
        measured_row("<b>latentdiffusionwithoutaspace</b>"),
    ],
)
SHIPPED = Measured.model_validate_json((BUILT_IN / RESULTS_FILE).read_text())


def open_card(page: Page, **changes: object) -> Locator:
    facts = ModelFacts(
        name="gamma-mit-b0",
        version="1+587f4c30",
        digest="0123456789abcdef",
        trained=True,
        backbone="mit_b0",
        parameters=5_822_707,
        crop_size=256,
        min_side=64,
        thresholds=Thresholds(
            uncertain=0.3701108247041702,
            ai_generated=0.822585791349411,
            mask=0.3,
            manipulated_area=0.0029296875,
        ),
        notice="Scores are no proof.",
        measured=MEASURED,
    ).model_copy(update=changes)
    page.route("**/v1/model", answer(facts.model_dump(mode="json")))
    page.reload()
    expect(page.locator("#model-line")).to_contain_text(facts.version)
    page.keyboard.press("c")
    card = page.get_by_role("dialog")
    expect(card).to_be_visible()
    return card


def test_card_begins_with_what_a_score_is_worth(page: Page) -> None:
    card = open_card(page)
    headings = card.get_by_role("heading", level=3)
    expect(headings).to_have_text(
        [
            "How reliable a score is",
            "By generator",
            "How this was measured",
            "Limits",
            "Technical facts",
        ]
    )
    for text in (
        "This model is weak",
        "Of 100 AI-generated pictures it finds 35 while calling 5 of 100 photographs",
        "12 while calling 1 of 100",
        "AUC 0.75 (95 % confidence: 0.70 to 0.79)",
        "3.3 % of the photographs",
        "1.6 % to 6.7 %",
        "compression",
        "screenshots",
        "masks are hints",
        "not a proof",
        "5,822,707",
    ):
        expect(card).to_contain_text(text)
    row = card.get_by_role("row").filter(has_text="gemini-nano-banana or other 2025H2")
    expect(row.get_by_role("cell")).to_have_text(
        ["279", "0.75 (0.70\N{EN DASH}0.79)", "12.2 %", "35.1 %"]
    )
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


@pytest.mark.parametrize("width", [375, 1280, 3840])
@pytest.mark.parametrize("measured", [MEASURED, SHIPPED], ids=["made", "shipped"])
def test_card_fits_and_shows_nothing_raw(page: Page, width: int, measured: Measured) -> None:
    page.set_viewport_size({"width": width, "height": 812})
    card = open_card(page, measured=measured)
    expect(card.get_by_role("table")).to_be_visible()
    text = card.inner_text()
    for raw in ("[0.", "{", "null", "undefined", "NaN", "`", "fpr", str(_UNROUNDED)):
        assert raw not in text
    wider = "e => e.scrollWidth > e.clientWidth"
    assert not card.evaluate(wider)
    assert not page.locator("#card-body").evaluate(wider)


def test_strong_model_is_not_called_weak(page: Page) -> None:
    strong = measured_row("all generators").model_copy(update={"auc": 0.95})
    card = open_card(page, measured=MEASURED.model_copy(update={"rows": [strong]}))
    expect(card).to_contain_text("AUC 0.95")
    expect(card).not_to_contain_text("weak")


def test_card_without_measurements_says_so(page: Page) -> None:
    card = open_card(page, measured=None)
    expect(card).to_contain_text("The accuracy of this model was not measured")
    expect(card.get_by_role("table")).to_have_count(0)
    expect(card).to_contain_text("screenshots")


def test_card_of_an_untrained_model_says_so(page: Page) -> None:
    card = open_card(page, trained=False, measured=None, notice="Its scores mean nothing.")
    expect(card.locator(".note")).to_have_text("Its scores mean nothing.")
