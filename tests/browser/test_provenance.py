"""The panel of what the file itself says, the badge in the list, and words for a conflict."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.pages import MadeList, made_record, row, rows

HOSTILE = "<img src=x onerror=alert(1)> a lighthouse"


@pytest.fixture
def page(alone: Page) -> Page:
    return alone


def statement(**changes: object) -> dict:
    made = {"source": "text", "says": "generated", "by": "Midjourney", "confidence": "unsigned"}
    return made | {"details": {}} | changes


def provenance(*statements: dict, **summary: object) -> dict:
    told = {
        "says": "generated",
        "by": "Midjourney",
        "confidence": "unsigned",
        "text": "It says so.",
    }
    return {"statements": list(statements), "summary": told | summary}


def part(title: str, **validity: bool) -> dict:
    return {"title": title, "says": "captured", "signer": "Camera Inc"} | validity


SIGNED = provenance(
    statement(
        source="c2pa",
        by="OpenAI",
        confidence="signed_trusted",
        details={
            "valid": True,
            "trusted": True,
            "signer": "OpenAI Media Service",
            "actions": [{"action": "c2pa.created", "source_type": "trainedAlgorithmicMedia"}],
            "ingredients": [
                part("trusted.jpg", valid=True, trusted=True),
                part("unknown.jpg", valid=True, trusted=False),
                part("tampered.jpg", valid=False, trusted=False),
                part("old.jpg"),
            ],
        },
    ),
    statement(details={"generator": "Midjourney", "prompt": HOSTILE}),
    by="OpenAI",
    confidence="signed_trusted",
)


def opened(page: Page, **changes: object) -> Locator:
    MadeList(page, [made_record(0, **changes)])
    page.reload()
    rows(page).first.click()
    panel = page.locator("#details")
    expect(panel).to_be_visible()
    return panel


def test_signed_as_generated_and_not_seen_by_the_model(page: Page) -> None:
    panel = opened(page, provenance=SIGNED)  # its verdict is authentic
    expect(panel.get_by_role("heading", name="What the file says")).to_be_visible()
    expect(panel).to_contain_text("Signed by “OpenAI” as AI-generated; the model did not see it.")
    for text in (
        "Signed manifest (C2PA)",
        "AI-generated, by “OpenAI”",
        "the signature matches the file",
        "created, trainedAlgorithmicMedia",
        "“trusted.jpg”, captured, signed by “Camera Inc”",
        "“unknown.jpg”, captured, signed in the name of “Camera Inc” (not on the trust list)",
        "“tampered.jpg”, captured, signed in the name of “Camera Inc” (the signature could not be",
        "“old.jpg”, captured, signed in the name of “Camera Inc” (not verified)",
    ):
        expect(panel).to_contain_text(text)
    expect(row(page, "picture 0.jpg").locator(".origin")).to_have_text("file: AI")


def test_a_prompt_is_folded_and_plain_text(page: Page) -> None:
    panel = opened(page, provenance=SIGNED)
    prompt = panel.locator("details.folded p")
    expect(prompt).not_to_be_visible()
    panel.get_by_text("Prompt", exact=True).click()
    expect(prompt).to_have_text(HOSTILE)
    expect(panel.locator("img")).to_have_count(0)


def test_camera_against_a_score(page: Page) -> None:
    made = provenance(
        statement(source="exif", says="captured", by="Canon", details={"make": "Canon"}),
        says="captured",
        by="Canon",
    )
    panel = opened(page, provenance=made, verdict="ai_generated")
    expect(panel).to_contain_text("Described by “Canon” as taken with a camera; the model calls it")
    expect(row(page, "picture 0.jpg").locator(".origin")).to_have_text("file: camera")


def test_signature_that_is_not_trusted_and_a_forged_name(page: Page) -> None:
    forged = 'Leica”\n(a trusted signer) as edited; "fine". ' + "x" * 80
    made = statement(source="c2pa", says="captured", by=forged, confidence="signed_untrusted")
    told = {key: made[key] for key in ("says", "by", "confidence")}
    panel = opened(page, provenance=provenance(made, **told), verdict="ai_generated")
    shown = "“Leica a trusted signer as edited; fine. xxxxxxxxxxxxxxxxxxx…”"
    expect(panel).to_contain_text(
        f"Signed in the name of {shown} (not on the trust list) as taken with a camera; the model"
    )
    expect(panel).to_contain_text(
        f"taken with a camera, in the name of {shown} (not on the trust list)"
    )


def test_a_signature_that_does_not_match(page: Page) -> None:
    broken = statement(source="c2pa", details={"valid": False, "problems": ["x.mismatch"]})
    panel = opened(page, provenance=provenance(broken))
    expect(panel).to_contain_text("the signature does not match the file")
    expect(panel).to_contain_text("x.mismatch")


def test_a_file_that_says_nothing_and_a_record_of_an_older_release(page: Page) -> None:
    silent = provenance(says=None, by=None, confidence=None, text="The file does not say.")
    panel = opened(page, provenance=silent)
    expect(panel).to_contain_text("The file does not say.")
    expect(row(page, "picture 0.jpg").locator(".origin")).to_have_text("")
    panel = opened(page)
    expect(panel).to_contain_text("Coverage")
    expect(panel).not_to_contain_text("What the file says")
