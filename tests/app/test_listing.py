"""Listing of detections: stable pages, and lookup by ids."""

from __future__ import annotations

import httpx2
import pytest

from tests.app.conftest import StandIn, post
from tests.app.replica import assert_problem


def ids(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return [record["id"] for record in answer.json()["detections"]]


def test_pages_are_newest_first_and_stable(alice: httpx2.Client) -> None:
    sent = [post(alice).json()["id"] for _ in range(7)][::-1]
    page = alice.get("/v1/detections?limit=3")
    assert ids(page) == sent[:3]
    post(alice)
    alice.delete(f"/v1/detections/{sent[2]}").raise_for_status()  # the one the cursor stands on
    page = alice.get(page.json()["next"])
    assert ids(page) == sent[3:6]
    post(alice)
    page = alice.get(page.json()["next"])
    assert ids(page)[0] == sent[6]


def test_pages_are_complete_and_the_last_has_no_next(bob: httpx2.Client) -> None:
    sent = {post(bob).json()["id"] for _ in range(5)}
    path, found = "/v1/detections?limit=2", []
    while path is not None:
        page = bob.get(path)
        found += ids(page)
        assert len(ids(page)) <= 2
        path = page.json()["next"]
    assert len(found) == len(set(found))
    assert sent <= set(found)


def test_list_shows_current_records(alice: httpx2.Client, standin: StandIn) -> None:
    name = post(alice, ref_id="post 17/ü").json()["id"]
    assert standin.finish(name)
    (listed,) = alice.get("/v1/detections?limit=1").json()["detections"]
    assert listed == alice.get(f"/v1/detections/{name}").json()
    assert (listed["status"], listed["ref_id"]) == ("succeeded", "post 17/ü")


@pytest.mark.parametrize("separator", [",", "&ids="])
def test_list_by_ids_in_the_given_order(alice: httpx2.Client, separator: str) -> None:
    a, b, c = (post(alice).json()["id"] for _ in range(3))
    answer = alice.get(f"/v1/detections?ids={separator.join([c, 'nowhere', a, c, b])}")
    assert ids(answer) == [c, a, b]
    assert answer.json()["missing"] == ["nowhere"]
    assert answer.json()["next"] is None
    refused = alice.get(f"/v1/detections?ids={a}&limit=1")
    assert_problem(refused, 400, "malformed_request")


def test_list_with_no_ids_is_empty(alice: httpx2.Client) -> None:
    post(alice)
    assert ids(alice.get("/v1/detections?ids=")) == []


def test_at_most_100_ids(alice: httpx2.Client) -> None:
    names = [f"n{number}" for number in range(101)]
    answer = alice.get("/v1/detections", params={"ids": ",".join(names[:100])})
    assert answer.json()["missing"] == names[:100]
    answer = alice.get("/v1/detections", params={"ids": ",".join(names)})
    assert_problem(answer, 400, "malformed_request")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=%2B", "cursor="]
)
def test_invalid_list_parameters(alice: httpx2.Client, query: str) -> None:
    assert_problem(alice.get(f"/v1/detections?{query}"), 400, "malformed_request")
