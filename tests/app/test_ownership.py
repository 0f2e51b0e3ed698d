"""Callers never see each other's detections or cached results."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from tests.app.conftest import KEYS, StandIn, new_picture, post
from tests.app.replica import Replica, assert_problem

PLACEHOLDERS = {"head": ("ai", "manipulation")}
BODIES = {"review": {"decision": "ai"}}
PUBLIC = {"/livez", "/readyz"}


def routes_of_a_detection(document: dict, detection_id: str) -> list[tuple[str, str]]:
    """Method and path of every call about one detection, whatever calls there will be."""
    calls = []
    for template, methods in document["paths"].items():
        if "{detection_id}" not in template:
            continue
        paths = [template.replace("{detection_id}", detection_id)]
        for name in re.findall(r"{(\w+)}", paths[0]):
            paths = [p.replace(f"{{{name}}}", v) for p in paths for v in PLACEHOLDERS[name]]
        calls += [(method.upper(), path) for method in methods for path in paths]
    # What deletes the detection comes last.
    return sorted(calls, key=lambda call: (call[0] == "DELETE", -len(call[1])))


def ask(client: httpx2.Client, method: str, path: str) -> httpx2.Response:
    body = BODIES.get(path.rpartition("/")[2]) if method == "POST" else None
    return client.request(method, path, json=body)


def test_detections_of_other_callers_are_not_found(
    alice: httpx2.Client, bob: httpx2.Client, standin: StandIn
) -> None:
    name = post(alice).json()["id"]
    assert standin.finish(name)
    calls = routes_of_a_detection(alice.get("/openapi.json").json(), name)
    assert {method for method, _ in calls} >= {"GET", "DELETE"}
    assert len(calls) >= 7
    for method, path in calls:
        foreign = ask(bob, method, path)
        assert_problem(foreign, 404, "not_found")
        assert foreign.json()["detail"] == "There is no detection with this id.", path
    for method, path in calls:
        assert ask(alice, method, path).is_success, f"{method} {path}"


def test_every_call_needs_a_key(pair: list[Replica], alice: httpx2.Client) -> None:
    name = post(alice).json()["id"]
    document = alice.get("/openapi.json").json()
    calls = [*routes_of_a_detection(document, name), *routes_of_all_detections(document)]
    with pair[0].client() as nobody:
        for method, path in calls:
            assert_problem(ask(nobody, method, path), 401, "key_missing")


def routes_of_all_detections(document: dict) -> list[tuple[str, str]]:
    """Method and path of every other call that needs a key."""
    return [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if "{" not in path and path not in PUBLIC
    ]


def test_no_call_shows_or_changes_what_is_of_another_caller(
    alice: httpx2.Client, bob: httpx2.Client, standin: StandIn
) -> None:
    records = [post(alice, ref_id=f"private {at}").json() for at in range(2)]
    names = [record["id"] for record in records]
    for name in names:
        assert standin.finish(name)
    review = {"decision": "genuine", "note": "private note"}
    alice.post(f"/v1/detections/{names[0]}/review", json=review).raise_for_status()
    ids = {"ids": ",".join(names)}
    asked: dict[tuple[str, str], dict[str, Any]] = {
        ("POST", "/v1/detections"): {"files": {"file": new_picture()}},
        ("GET", "/v1/detections"): {"params": ids},
        ("DELETE", "/v1/detections"): {"params": {**ids, "purge": "true"}},
        ("POST", "/v1/detections/batch"): {"files": {"files": new_picture()}},
        ("GET", "/v1/detections/export"): {"params": {"format": "jsonl"}},
        ("GET", "/v1/detections/archive"): {"params": ids},
        ("GET", "/v1/events"): {"headers": {"Prefer": "wait=0", "Last-Event-ID": "0-0"}},
        ("GET", "/v1/reviews"): {"params": ids},
        ("POST", "/v1/reviews"): {"json": {"ids": names, "decision": "ai"}},
        ("POST", "/v1/reviews/next"): {},
        ("GET", "/v1/reviews/assigned"): {},
        ("GET", "/v1/webhooks/attempts"): {"params": {"detection_id": names[0]}},
        ("POST", "/v1/webhooks/replay"): {"json": {"ids": names}},
        ("POST", "/v1/webhooks/test"): {"json": {}},
        ("GET", "/v1/model"): {},
        ("GET", "/v1/usage"): {},
    }
    assert set(asked) == {*routes_of_all_detections(alice.get("/openapi.json").json())}
    before = [alice.get(f"/v1/detections/{name}").json() for name in names]
    private = [b"private", *(one["image"]["sha256"].encode() for one in records)]
    for (method, path), given in asked.items():
        answer = bob.request(method, path, **given)
        assert answer.status_code < 500, (method, path)
        assert not any(part in answer.content for part in private), (method, path)
    assert [alice.get(f"/v1/detections/{name}").json() for name in names] == before
    (kept,) = alice.get("/v1/reviews", params=ids).json()["reviews"]
    assert (kept["decision"], kept["note"]) == ("genuine", "private note")


def test_lists_contain_own_detections_only(alice: httpx2.Client, bob: httpx2.Client) -> None:
    name = post(alice).json()["id"]
    listed = bob.get("/v1/detections", params={"limit": 100}).json()
    assert name not in [record["id"] for record in listed["detections"]]
    named = bob.get("/v1/detections", params={"ids": name}).json()
    assert (named["detections"], named["missing"]) == ([], [name])
    assert alice.get("/v1/detections", params={"ids": name}).json()["missing"] == []


@pytest.mark.parametrize("batch", [False, True])
def test_pictures_of_other_callers_are_not_recognised(
    alice: httpx2.Client, bob: httpx2.Client, standin: StandIn, batch: bool
) -> None:
    picture, key = new_picture(), f"shared-{batch}"
    first = post(alice, picture, idempotency_key=key).json()
    assert standin.finish(first["id"])
    if batch:
        headers = {"Idempotency-Key": key}
        answer = bob.post("/v1/detections/batch", files={"files": picture}, headers=headers)
        (entry,) = answer.json()["results"]
        status, record = entry["status"], entry["detection"]
    else:
        answer = post(bob, picture, idempotency_key=key)
        status, record = answer.status_code, answer.json()
    assert status == 202
    assert record["id"] != first["id"]
    assert not record["cached"]


def test_responses_do_not_contain_the_owner(alice: httpx2.Client, standin: StandIn) -> None:
    name = post(alice).json()["id"]
    standin.finish(name)
    for path in (f"/v1/detections/{name}", "/v1/detections"):
        text = alice.get(path).text
        assert name in text
        assert "alice" not in text
        assert "owner" not in text
        assert KEYS["alice"] not in text
