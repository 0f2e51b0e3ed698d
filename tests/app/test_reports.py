"""The report of a detection."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import httpx2
import pytest

from app.http import examples
from app.http.report import Images, document
from tests.app.conftest import StandIn, post
from tests.app.replica import assert_problem

HOSTILE = "<script>alert(1)</script>\"'&\u202e"


def path(detection_id: str) -> str:
    return f"/v1/detections/{detection_id}/report.html"


@pytest.fixture
def name(alice: httpx2.Client, standin: StandIn) -> str:
    """A finished detection of alice's, with a hostile reference."""
    detection_id: str = post(alice, ref_id="<script>alert(1)</script>\"'&").json()["id"]
    assert standin.finish(detection_id)
    return detection_id


def test_report_has_everything_and_no_foreign_markup(alice: httpx2.Client, name: str) -> None:
    record = alice.get(f"/v1/detections/{name}").json()
    review = {"decision": "ai", "note": HOSTILE, "reviewer": "<b>Anna</b>"}
    alice.post(f"/v1/detections/{name}/review", json=review)
    answer = alice.get(path(name))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    page = answer.text
    assert "<script" not in page
    assert "<b>" not in page
    for part in (
        name,
        record["image"]["sha256"],
        record["model"]["name"],
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;b&gt;Anna&lt;/b&gt;",
        "AI-generated",
        f"{100 * record['ai_probability']:.1f} %",
        f"{100 * record['thresholds']['uncertain']:.1f} %",
        record["created_at"][:10],
        " UTC",
    ):
        assert part in page, part
    assert page.count("data:image/jpeg;base64,") == 3
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(?:src|href)=\"(?!data:)", page), "it loads nothing"


def test_policy_allows_the_style_by_its_hash_only(alice: httpx2.Client, name: str) -> None:
    policy = alice.get(path(name)).headers["content-security-policy"]
    assert "default-src 'none'; style-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy


def test_unfinished_detection_has_no_report(alice: httpx2.Client) -> None:
    detection_id = post(alice).json()["id"]
    assert_problem(alice.get(path(detection_id)), 409, "detection_unfinished")


def test_report_without_a_stored_picture_says_so() -> None:
    page = document(examples.SUCCEEDED, [], Images(None, {}), None, datetime.now(UTC)).decode()
    assert "The picture is not stored any more." in page
    assert "This model does not run at the service now" in page
    assert "<img" not in page
