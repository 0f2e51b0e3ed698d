"""Reuse of the results of known pictures."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from app.contract import records
from app.contract.jobs import JobQueue
from app.contract.schemas import Detection
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Submission
from app.http.service import Service
from app.http.waiting import FinishedEvents
from pictures.findings import View
from tests.app.conftest import KEYS, StandIn, new_picture, post
from tests.app.replica import replicas
from tests.buckets import Bucket

SAME = ("ai_probability", "verdict", "manipulated", "thresholds", "model", "view", "image")


@pytest.fixture
def picture() -> bytes:
    return new_picture()


@pytest.fixture
def first(alice: httpx2.Client, standin: StandIn, picture: bytes) -> dict:
    """A finished detection of the picture."""
    name = post(alice, picture, ref_id="first").json()["id"]
    assert standin.finish(name)
    return alice.get(f"/v1/detections/{name}").json()


@pytest.mark.parametrize("given", [{}, {"prefer": "wait=60"}])
def test_known_picture_gets_the_earlier_result(
    alice: httpx2.Client, standin: StandIn, picture: bytes, first: dict, given: dict[str, str]
) -> None:
    queued = standin.queued()
    answer = post(alice, picture, ref_id="second", **given)
    assert answer.status_code == 200
    assert standin.queued() == queued
    second = answer.json()
    assert alice.get(answer.headers["location"]).json() == second
    assert (second["cached"], second["ref_id"]) == (True, "second")
    assert second["id"] != first["id"]
    assert [second[name] for name in SAME] == [first[name] for name in SAME]
    assert second["created_at"] > first["finished_at"]
    assert second["expires_at"] > first["expires_at"]
    assert second["timings"]["forward"] == 0
    for head in ("ai", "manipulation"):
        mask = second["masks"][head]
        assert second["id"] in mask["mask_url"]
        assert second["id"] in mask["overlay_url"]
        assert alice.get(mask["mask_url"]).content in StandIn.MASKS.values()
    assert alice.get(f"/v1/detections/{second['id']}/image").content == picture
    newest = alice.get("/v1/detections?limit=1").json()["detections"]
    assert newest == [second]


def test_a_result_without_masks_is_reused(
    alice: httpx2.Client, standin: StandIn, picture: bytes
) -> None:
    first = post(alice, picture, view="glance").json()["id"]
    assert standin.finish(first, masks=None, manipulated=None)
    answer = post(alice, picture, view="glance")
    assert answer.status_code == 200, answer.text
    second = answer.json()
    assert (second["cached"], second["masks"]) == (True, None)
    alice.delete(f"/v1/detections/{first}").raise_for_status()
    assert alice.get(f"/v1/detections/{second['id']}/image").content == picture


@pytest.mark.parametrize("deleted", ["first", "second"])
def test_copy_and_original_are_independent(
    alice: httpx2.Client, picture: bytes, first: dict, deleted: str
) -> None:
    names = {"first": first["id"], "second": post(alice, picture).json()["id"]}
    alice.delete(f"/v1/detections/{names.pop(deleted)}").raise_for_status()
    (left,) = names.values()
    for path in ("image", "masks/ai.png", "masks/manipulation.png"):
        assert alice.get(f"/v1/detections/{left}/{path}").status_code == 200


def test_copied_files_live_as_long_as_the_copy(
    alice: httpx2.Client, standin: StandIn, picture: bytes, first: dict
) -> None:
    second = post(alice, picture).json()["id"]
    held = standin.redis.hmget(f"gamma:detection:{second}", "image", "masks")
    (end,) = {standin.redis.pexpiretime(records.holding_key(holding)) for holding in held}
    record = standin.store.get(second)
    assert record is not None
    assert end == int(record.expires_at.timestamp() * 1000)
    assert held == standin.redis.hmget(f"gamma:detection:{first['id']}", "image", "masks")


def test_another_model_computes_again(
    alice: httpx2.Client, standin: StandIn, picture: bytes, first: dict
) -> None:
    standin.use_model("2")
    answer = post(alice, picture)
    assert answer.status_code == 202
    assert standin.finish(answer.json()["id"])
    assert post(alice, picture).json()["model"]["version"] == "2"


def test_other_weights_of_the_same_version_compute_again(
    alice: httpx2.Client, standin: StandIn, picture: bytes, first: dict
) -> None:
    assert first["model"] == {"name": "stand-in", "version": "1", "digest": None}
    for digest in ("0" * 16, "1" * 16):
        standin.use_model("1", digest)
        answer = post(alice, picture)
        assert answer.status_code == 202
        assert standin.finish(answer.json()["id"])
        assert post(alice, picture).json()["model"]["digest"] == digest
        assert alice.get("/v1/model").json()["digest"] == digest


@pytest.mark.usefixtures("first")
def test_cache_needs_a_live_worker(alice: httpx2.Client, standin: StandIn, picture: bytes) -> None:
    standin.redis.delete("gamma:model")
    assert post(alice, picture).status_code == 202


@pytest.mark.usefixtures("first")
def test_another_view_computes_again(alice: httpx2.Client, picture: bytes) -> None:
    assert post(alice, picture, view="center").status_code == 202


def test_only_existing_results_are_reused(
    alice: httpx2.Client, standin: StandIn, picture: bytes
) -> None:
    unfinished, failed = (post(alice, picture).json()["id"] for _ in range(2))
    standin.fail(failed)
    third = post(alice, picture)
    assert third.status_code == 202
    assert standin.finish(unfinished)
    alice.delete(f"/v1/detections/{unfinished}").raise_for_status()
    assert post(alice, picture).status_code == 202


@pytest.mark.usefixtures("first")
def test_idempotency_key_takes_precedence_over_the_cache(
    alice: httpx2.Client, picture: bytes
) -> None:
    second = post(alice, picture, idempotency_key="known").json()
    assert second["cached"]
    assert post(alice, picture, idempotency_key="known").json() == second


@pytest.mark.usefixtures("first")
def test_cache_can_be_disabled(pair_redis_url: str, tmp_path: Path, picture: bytes) -> None:
    environment = {"GAMMA_CACHE": "false", "GAMMA_API_KEYS": f"alice={KEYS['alice']}"}
    with (
        replicas(pair_redis_url, tmp_path, 1, **environment) as (other,),
        other.client(KEYS["alice"]) as client,
    ):
        assert post(client, picture).status_code == 202


@pytest.mark.parametrize("place", ["in Redis", "in a bucket"])
def test_result_deleted_during_the_request_is_computed_again(
    pair_redis_url: str, standin: StandIn, picture: bytes, bucket: Bucket, place: str
) -> None:
    url = bucket.url if place == "in a bucket" else None
    settings = Settings(redis_url=pair_redis_url, store=url)

    class Late(Store):
        """Another caller's process deletes the known detection between the two round trips."""

        def accept_known(self, submission: Submission, result: Detection) -> bool:
            service.delete(submission.answer.id, "alice")
            return super().accept_known(submission, result)

    queue = JobQueue(standin.redis, settings)
    store = Late.open(standin.redis, settings)
    service = Service(settings, store, queue, FinishedEvents(pair_redis_url))
    order = Submission("alice", picture, View.TILED)
    first = service.submit(order)
    assert standin.finish(first.id)
    second = service.submit(order)
    assert (second.status, second.cached) == ("queued", False)
    assert second.id in standin.queued()
    assert store.get_image(second.id) == picture
    assert len(bucket.objects()) == (1 if url else 0)
