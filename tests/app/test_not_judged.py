"""Pictures that are too small to judge, over HTTP."""

from __future__ import annotations

import httpx2

from pictures.findings import NotJudged
from tests.app.conftest import StandIn, post
from tests.app.replica import assert_problem


def test_the_limit_is_a_fact_of_the_model(alice: httpx2.Client, standin: StandIn) -> None:
    assert alice.get("/v1/model").json()["min_side"] == 12


def test_a_record_without_a_score_says_why_and_has_no_masks(
    alice: httpx2.Client, standin: StandIn
) -> None:
    name = post(alice).json()["id"]
    nothing = dict.fromkeys(("ai_probability", "verdict", "manipulated", "masks"))
    assert standin.deliver(standin.take(name), not_judged=NotJudged.TOO_SMALL, **nothing)
    record = alice.get(f"/v1/detections/{name}").json()
    assert (record["status"], record["not_judged"]) == ("succeeded", "too_small")
    assert all(record[field] is None for field in nothing)
    answer = alice.get(f"/v1/detections/{name}/masks/ai.png")
    assert_problem(answer, 404, "no_masks")
    assert "too_small" in answer.json()["detail"]
