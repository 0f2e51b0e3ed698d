"""Reviews over HTTP: decide, withdraw, list, export, erase."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from app.contract.reviews import MAX_NOTE
from tests.app.conftest import StandIn, post
from tests.app.replica import assert_problem

NOWHERE = "0" * 32


@pytest.fixture
def name(alice: httpx2.Client, standin: StandIn) -> str:
    """A finished detection of alice's."""
    detection_id: str = post(alice).json()["id"]
    assert standin.finish(detection_id)
    return detection_id


def path(detection_id: str) -> str:
    return f"/v1/detections/{detection_id}/review"


def decide(
    client: httpx2.Client,
    detection_id: str,
    decision: str = "ai",
    headers: dict[str, str] | None = None,
    **given: str,
) -> httpx2.Response:
    return client.post(path(detection_id), json={"decision": decision, **given}, headers=headers)


# -- one detection --------------------------------------------------------------------------------


def test_review_says_who_decided_what_about_which_result(
    alice: httpx2.Client, name: str, standin: StandIn
) -> None:
    record = alice.get(f"/v1/detections/{name}").json()
    answer = decide(alice, name, note=" six\r\nfingers ", reviewer="Änna")
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    review = answer.json()
    assert review.pop("created_at") > record["finished_at"]
    assert review == {
        "detection_id": name,
        "version": 1,
        "decision": "ai",
        "note": "six\nfingers",
        "reviewer": "Änna",
        "key": "alice",
        "erased_at": None,
        "sha256": record["image"]["sha256"],
        **{part: record[part] for part in ("ai_probability", "verdict", "manipulated")},
        **{part: record[part] for part in ("thresholds", "model")},
    }
    state = alice.get(path(name))
    assert state.headers["etag"] == answer.headers["etag"]
    assert state.json()["review"]["note"] == "six\nfingers"
    assert alice.get(f"/v1/detections/{name}").json() == record


def test_history_is_kept_and_a_withdrawal_is_part_of_it(alice: httpx2.Client, name: str) -> None:
    assert alice.get(path(name)).json()["history"] == []
    decide(alice, name, "ai")
    decide(alice, name, "genuine", note="it is a photograph")
    withdrawn = alice.delete(path(name), params={"reviewer": "Ben"}).json()
    assert withdrawn["review"] is None
    assert alice.delete(path(name)).json() == withdrawn, "nothing is left to withdraw"
    assert decide(alice, name, "unsure").status_code == 201
    state = alice.get(path(name)).json()
    assert state["review"] == state["history"][0]
    found = [(one["version"], one["decision"]) for one in state["history"]]
    assert found == [(4, "unsure"), (3, "withdrawn"), (2, "genuine"), (1, "ai")]
    assert state["history"][1]["reviewer"] == "Ben"
    assert state["history"][2]["note"] == "it is a photograph"


def test_stale_reviewer_is_refused_and_told_the_current_decision(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, name: str
) -> None:
    first = {"If-None-Match": "*"}
    answer = decide(alice, name, "ai", first)
    assert answer.status_code == 201
    refused = decide(alice_elsewhere, name, "genuine", first)
    assert assert_problem(refused, 412, "review_conflict")["review"]["decision"] == "ai"
    assert refused.headers["etag"] == answer.headers["etag"]
    seen = {"If-Match": refused.headers["etag"]}
    assert decide(alice_elsewhere, name, "genuine", seen).status_code == 201
    assert_problem(decide(alice, name, "unsure", seen), 412, "review_conflict")
    assert_problem(alice.delete(path(name), headers=seen), 412, "review_conflict")
    now = {"If-Match": alice.get(path(name)).headers["etag"]}
    assert alice.delete(path(name), headers=now).json()["review"] is None
    assert decide(alice, name, "ai", first).status_code == 201, "a withdrawn decision is none"


def test_a_proxy_that_compresses_answers_hinders_no_reviewer(
    alice: httpx2.Client, name: str
) -> None:
    """It turns the `ETag` of an answer into a weak one."""
    first = f"W/{decide(alice, name, 'ai').headers['etag']}"
    assert_problem(decide(alice, name, "unsure", {"If-None-Match": first}), 412, "review_conflict")
    assert decide(alice, name, "genuine", {"If-Match": first}).status_code == 201
    assert_problem(alice.delete(path(name), headers={"If-Match": first}), 412, "review_conflict")


def test_repeated_request_is_answered_but_not_stored_twice(alice: httpx2.Client, name: str) -> None:
    first = decide(alice, name, headers={"If-None-Match": "*"}, note="once")
    again = decide(alice, name, headers={"If-None-Match": "*"}, note="once")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert len(alice.get(path(name)).json()["history"]) == 1


def test_two_reviewers_at_once_lose_no_decision(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, name: str
) -> None:
    notes = [f"note {number}" for number in range(12)]
    clients = [alice, alice_elsewhere] * 6
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda one, note: decide(one, name, note=note), clients, notes))
    assert {answer.status_code for answer in answers} == {201}
    history = alice.get(path(name)).json()["history"]
    assert [one["version"] for one in history] == list(range(12, 0, -1))
    assert sorted(one["note"] for one in history) == sorted(notes)


def test_only_one_of_several_first_reviewers_wins(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, name: str
) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(
                lambda one, note: decide(one, name, "ai", {"If-None-Match": "*"}, note=note),
                [alice, alice_elsewhere] * 3,
                "abcdef",
            )
        )
    assert sorted(answer.status_code for answer in answers) == [201, *[412] * 5]
    assert len(alice.get(path(name)).json()["history"]) == 1


def test_unfinished_and_unknown_detections_cannot_be_reviewed(
    alice: httpx2.Client, bob: httpx2.Client, name: str
) -> None:
    waiting = post(alice).json()["id"]
    assert_problem(decide(alice, waiting), 409, "detection_unfinished")
    for client, other in ((alice, NOWHERE), (bob, name)):
        assert_problem(decide(client, other), 404, "not_found")
        assert_problem(decide(client, other, headers={"If-Match": "*"}), 404, "not_found")
        assert_problem(client.get(path(other)), 404, "not_found")
        assert_problem(client.delete(path(other)), 404, "not_found")


def test_reviews_outlive_the_detection(alice: httpx2.Client, name: str) -> None:
    before = decide(alice, name, note="kept").json()
    alice.delete(f"/v1/detections/{name}").raise_for_status()
    assert alice.get(path(name)).json()["review"] == before
    later = decide(alice, name, "genuine").json()
    assert {**later, "version": 1} == {
        **before,
        "decision": "genuine",
        "note": None,
        "created_at": later["created_at"],
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "maybe"},
        {"decision": "withdrawn"},
        {"decision": "ai", "note": "x" * (MAX_NOTE + 1)},
        {"decision": "ai", "note": "a\0b"},
        {"decision": "ai", "note": 1},
        {"decision": "ai", "reviewer": "x" * 101},
        {"decision": "ai", "reviewer": "a\nb"},
        {"decision": "ai", "more": 1},
        [],
    ],
)
def test_invalid_reviews_are_refused(alice: httpx2.Client, name: str, body: object) -> None:
    assert_problem(alice.post(path(name), json=body), 400, "malformed_request")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"decision": "ai", "note": "\\ud800"}', 400),
        (b"{", 400),
        (b"[" * 10_000, 400),
        (b'{"decision": "ai", "note": "' + b"x" * 2**17, 413),
    ],
)
def test_hostile_bodies_are_refused(
    alice: httpx2.Client, name: str, content: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = alice.post(path(name), content=content, headers=headers)
    assert_problem(answer, status, "malformed_request" if status == 400 else "upload_too_large")


# -- several --------------------------------------------------------------------------------------


def test_bulk_review_answers_for_each(
    alice: httpx2.Client, bob: httpx2.Client, standin: StandIn, name: str
) -> None:
    other, waiting = post(alice).json()["id"], post(alice).json()["id"]
    assert standin.finish(other)
    decide(alice, other, "genuine", note="all")
    ids = [name, NOWHERE, waiting, other, name]
    answer = alice.post("/v1/reviews", json={"ids": ids, "decision": "genuine", "note": "all"})
    assert answer.status_code == 207, answer.text
    results = answer.json()["results"]
    assert [(one["detection_id"], one["status"]) for one in results] == [
        (name, 201),
        (NOWHERE, 404),
        (waiting, 409),
        (other, 200),
    ]
    assert results[1]["problem"]["code"] == "not_found"
    assert results[0]["review"] == alice.get(path(name)).json()["review"]
    foreign = bob.post("/v1/reviews", json={"ids": [name], "decision": "ai"}).json()
    assert [one["status"] for one in foreign["results"]] == [404]
    too_many = alice.post("/v1/reviews", json={"ids": [name] * 101, "decision": "ai"})
    assert_problem(too_many, 400, "malformed_request")


def test_list_is_newest_first_in_pages_and_filtered(
    alice: httpx2.Client, bob: httpx2.Client, standin: StandIn
) -> None:
    names = [post(alice).json()["id"] for _ in range(5)]
    decisions = []
    for one, decision in zip(names, ("ai", "genuine", "ai", "ai", "unsure"), strict=True):
        assert standin.finish(one)
        decisions.append(decide(alice, one, decision).json())
    since = decisions[0]["created_at"]
    decide(alice, names[0], "manipulated")
    alice.delete(path(names[3])).raise_for_status()

    def listed(**parameters: str) -> list[str]:
        found, link = [], None
        while link is not None or not found:
            answer = alice.get(link) if link else alice.get("/v1/reviews", params=parameters)
            assert answer.status_code == 200, answer.text
            found += [one["detection_id"] for one in answer.json()["reviews"]]
            link = answer.json()["next"]
            if link is None:
                break
        return found

    expected = [names[0], names[4], names[2], names[1]]
    assert listed(since=since, limit="3") == expected
    assert listed(since=since, decision="ai") == [names[2]]
    everything = listed(since=since, history="true", limit="2")
    assert everything == [names[3], names[0], *reversed(names)]
    found = alice.get("/v1/reviews", params={"ids": ",".join([names[1], names[3], NOWHERE])})
    assert [one["detection_id"] for one in found.json()["reviews"]] == [names[1]]
    assert found.json()["missing"] == [names[3], NOWHERE]
    foreign = bob.get("/v1/reviews", params={"ids": names[1]}).json()
    assert (foreign["reviews"], foreign["missing"]) == ([], [names[1]])
    assert bob.get("/v1/reviews", params={"since": since}).json()["reviews"] == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "cursor=1",
        "since=2026-01-01T00:00:00",
        "since=0.5",
        "decision=maybe",
        "format=xml",
        "ids=a&limit=1",
        "ids=%00",
        f"ids={','.join(map(str, range(101)))}",
    ],
)
def test_invalid_queries_are_refused(alice: httpx2.Client, query: str) -> None:
    assert_problem(alice.get(f"/v1/reviews?{query}"), 400, "malformed_request")


def test_exports_contain_all_and_no_formulas(
    alice: httpx2.Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = decide(alice, name, note='=HYPERLINK("http://x")', reviewer="+1").json()["created_at"]
    decide(alice, name, "genuine", note="two, lines\nhere")
    chosen = {"since": since, "history": "true"}
    answer = alice.get("/v1/reviews", params={**chosen, "format": "jsonl"})
    assert answer.headers["content-type"] == "application/jsonl"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == alice.get("/v1/reviews", params=chosen).json()["reviews"]
    answer = alice.get("/v1/reviews", params={**chosen, "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="reviews.csv"'
    one = alice.get("/v1/reviews", params={**chosen, "format": "csv", "limit": "1"})
    assert one.text == "".join(f"{line}\r\n" for line in answer.text.split("\r\n")[:2])
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [(row["decision"], row["note"]) for row in rows] == [
        ("genuine", "two, lines\nhere"),
        ("ai", '\'=HYPERLINK("http://x")'),
    ]
    assert rows[1]["reviewer"] == "'+1"
    assert float(rows[0]["thresholds_uncertain"]) == lines[0]["thresholds"]["uncertain"]
    assert rows[0]["model_version"] == lines[0]["model"]["version"]


def test_times_at_the_ends_of_the_calendar(alice: httpx2.Client, name: str) -> None:
    decide(alice, name)
    for since, found in (("0001-01-01T00:00:00+14:00", 1), ("9999-12-31T23:59:59-14:00", 0)):
        answer = alice.get("/v1/reviews", params={"since": since, "limit": "1"})
        assert len(answer.json()["reviews"]) == found


def test_purge_erases_note_and_names_only(
    alice: httpx2.Client, bob: httpx2.Client, name: str
) -> None:
    before = decide(alice, name, note="about a person", reviewer="Anna").json()
    decide(alice, name, "genuine")
    tag = alice.get(path(name)).headers["etag"]
    assert_problem(bob.delete(f"/v1/detections/{name}?purge=true"), 404, "not_found")
    assert alice.delete(f"/v1/detections/{name}?purge=true").status_code == 204
    state = alice.get(path(name))
    assert state.headers["etag"] != tag
    for kept in state.json()["history"]:
        assert (kept["note"], kept["reviewer"], kept["key"]) == (None, None, None)
        assert kept["erased_at"] is not None
        assert kept["sha256"] == before["sha256"]
    assert [one["decision"] for one in state.json()["history"]] == ["genuine", "ai"]


def test_bulk_deletion_purges_too(
    alice: httpx2.Client, bob: httpx2.Client, standin: StandIn
) -> None:
    names = [post(alice).json()["id"] for _ in range(3)]
    for name in names:
        standin.finish(name)
        decide(alice, name, note="about a person").raise_for_status()
    gone, *others = names
    alice.delete(f"/v1/detections/{gone}").raise_for_status()
    query = {"ids": ",".join(names), "purge": "true"}
    assert bob.delete("/v1/detections", params=query).json()["deleted"] == []
    alice.delete("/v1/detections", params={**query, "dry_run": "true"}).raise_for_status()
    notes = [alice.get(path(name)).json()["review"]["note"] for name in names]
    assert notes == ["about a person"] * 3
    done = alice.delete("/v1/detections", params=query).json()
    assert (done["deleted"], done["missing"]) == (others, [gone])
    assert [alice.get(path(name)).json()["review"]["note"] for name in names] == [None] * 3


def test_purge_of_a_detection_that_is_gone(alice: httpx2.Client, name: str) -> None:
    decide(alice, name, note="about a person")
    alice.delete(f"/v1/detections/{name}").raise_for_status()
    assert alice.delete(f"/v1/detections/{name}?purge=true").status_code == 204
    assert alice.get(path(name)).json()["review"]["note"] is None
    assert_problem(alice.delete(f"/v1/detections/{NOWHERE}?purge=true"), 404, "not_found")
