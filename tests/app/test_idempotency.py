"""`Idempotency-Key`: a repeated request returns the same detection."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.app.conftest import StandIn, new_picture, post
from tests.app.replica import assert_problem


def test_repeated_request_returns_the_same_detection(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, standin: StandIn
) -> None:
    picture = new_picture()
    first = post(alice, picture, idempotency_key="again", ref_id="r")
    again = post(alice_elsewhere, picture, idempotency_key='"again"', ref_id="r")
    assert again.status_code == first.status_code == 202
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert standin.queued().count(first.json()["id"]) == 1
    assert standin.finish(first.json()["id"])
    later = post(alice, picture, idempotency_key="again", ref_id="r")
    assert later.status_code == 200
    assert later.json()["id"] == first.json()["id"]
    assert not later.json()["cached"]


def test_requests_without_key_create_new_detections(alice: httpx2.Client) -> None:
    picture = new_picture()
    assert post(alice, picture).json()["id"] != post(alice, picture).json()["id"]


def pictures(standin: StandIn) -> set[bytes]:
    """The keys of stored pictures."""
    keys = standin.redis.keys("gamma:image:*")
    return {key for key in keys if not key.endswith(b":holders")}


def test_concurrent_requests_create_one_detection(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client, standin: StandIn
) -> None:
    picture = new_picture()
    stored = pictures(standin)

    def send(client: httpx2.Client) -> httpx2.Response:
        return post(client, picture, idempotency_key="together")

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, [alice, alice_elsewhere] * 8))
    assert {answer.status_code for answer in answers} == {202}
    (name,) = {answer.json()["id"] for answer in answers}
    assert standin.queued().count(name) == 1
    assert len(pictures(standin) - stored) == 1


@pytest.mark.parametrize(
    "other", [{"view": "center"}, {"ref_id": "other"}, {"ref_id": "r", "picture": b"other"}]
)
def test_another_request_with_the_same_key_is_refused(
    alice: httpx2.Client, other: dict[str, str]
) -> None:
    picture, key = new_picture(), f"mismatch {sorted(other)}"
    first = post(alice, picture, idempotency_key=key, ref_id="r").json()
    given = {"ref_id": "r", **other}
    changed = given.pop("picture", None) and new_picture()
    refused = post(alice, changed or picture, idempotency_key=key, **given)
    assert_problem(refused, 422, "idempotency_mismatch")
    assert post(alice, picture, idempotency_key=key, ref_id="r").json()["id"] == first["id"]


def test_a_failed_detection_fails_again(alice: httpx2.Client, standin: StandIn) -> None:
    picture = new_picture()
    first = post(alice, picture, idempotency_key="bad").json()
    standin.fail(first["id"])
    document = assert_problem(post(alice, picture, idempotency_key="bad"), 422, "image_truncated")
    assert document["detection"].endswith(first["id"])


def test_a_deleted_detection_frees_its_key(alice: httpx2.Client) -> None:
    picture = new_picture()
    first = post(alice, picture, idempotency_key="deleted").json()
    alice.delete(f"/v1/detections/{first['id']}").raise_for_status()
    second = post(alice, picture, idempotency_key="deleted")
    assert second.status_code == 202
    assert second.json()["id"] != first["id"]


def test_a_refused_file_leaves_the_key_unused(alice: httpx2.Client) -> None:
    refused = post(alice, b"no picture", idempotency_key="refused")
    assert_problem(refused, 415, "not_an_image")
    assert post(alice, idempotency_key="refused").status_code == 202


def test_key_expires_with_the_record(alice: httpx2.Client, standin: StandIn) -> None:
    name = post(alice, idempotency_key="life").json()["id"]
    key = standin.redis.hget(f"gamma:detection:{name}", "idempotency")
    assert standin.redis.pexpiretime(key) == standin.redis.pexpiretime(f"gamma:detection:{name}")


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "tab\there", "ümlaut"])
def test_invalid_key(alice: httpx2.Client, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    answer = alice.post("/v1/detections", files={"file": new_picture()}, headers=headers)
    assert_problem(answer, 400, "malformed_request")


def test_keys_of_uploads_and_batches_are_separate(alice: httpx2.Client) -> None:
    sent = {"files": ("a.png", new_picture())}
    batch = alice.post("/v1/detections/batch", files=sent, headers={"Idempotency-Key": "met"})
    (entry,) = batch.json()["results"]
    for key in ("0 met", "met"):
        single = post(alice, idempotency_key=key)
        assert single.status_code == 202
        assert single.json()["id"] != entry["detection"]["id"]


def test_two_keys_are_refused(alice: httpx2.Client) -> None:
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    answer = alice.post("/v1/detections", files={"file": new_picture()}, headers=headers)
    assert_problem(answer, 400, "malformed_request")
