"""Batches: each picture is accepted or refused individually."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from app.command.embedded import private_redis
from app.contract.client import connect
from tests.app.conftest import (
    MAX_BATCH_UPLOAD,
    MAX_UPLOAD,
    StandIn,
    new_picture,
    post,
    wait_for,
)
from tests.app.replica import Replica, assert_problem, replicas
from tests.conftest import encode, photo, value


def send(
    client: httpx2.Client, files: Iterable[bytes], headers: dict[str, str] | None = None, **data
) -> httpx2.Response:
    parts = [("files", (f"{n}.png", file)) for n, file in enumerate(files)]
    return client.post("/v1/detections/batch", files=parts, data=data, headers=headers)


def results(answer: httpx2.Response) -> list[dict]:
    assert answer.status_code == 207, answer.text
    return answer.json()["results"]


def test_results_are_in_the_order_of_the_files(alice: httpx2.Client, standin: StandIn) -> None:
    known = new_picture()
    assert standin.finish(post(alice, known).json()["id"])
    good = new_picture()
    large = encode(photo(256, 256), "BMP")
    assert len(large) > MAX_UPLOAD
    entries = results(send(alice, [good, b"", b"text", known, large, new_picture()]))
    assert [entry["status"] for entry in entries] == [202, 400, 415, 200, 413, 202]
    codes = [entry["problem"] and entry["problem"]["code"] for entry in entries]
    assert codes == [None, "file_empty", "not_an_image", None, "upload_too_large", None]
    for entry in entries:
        assert (entry["detection"] is None) == (entry["problem"] is not None)
    for entry in (entries[0], entries[5]):
        record = entry["detection"]
        assert record["id"] in standin.queued()
        found = alice.get(f"/v1/detections/{record['id']}").json()
        assert {**found, "queue_position": None, "expected_wait": None} == record
    assert alice.get(f"/v1/detections/{entries[0]['detection']['id']}/image").content == good
    assert entries[3]["detection"]["cached"]


def test_refused_files_are_counted(pair: list[Replica], alice: httpx2.Client) -> None:
    counter = 'gamma_http_rejections_total{reason="not_an_image"}'
    before = value(pair[0].metrics(), counter)
    send(alice, [b"text", new_picture(), b"more text"])
    assert value(pair[0].metrics(), counter) == before + 2


def test_references_and_view(alice: httpx2.Client) -> None:
    entries = results(
        send(alice, [new_picture() for _ in range(3)], ref_id=["a", "", "c"], view="center")
    )
    records = [entry["detection"] for entry in entries]
    assert [record["ref_id"] for record in records] == ["a", None, "c"]
    assert {record["view"]["mode"] for record in records} == {"center"}


@pytest.mark.parametrize("ref_id", [["a"], ["a", "b", "c"], ["a", "b\n"], ["a", "x" * 201]])
def test_wrong_number_of_references(alice: httpx2.Client, ref_id: list[str]) -> None:
    answer = send(alice, [new_picture(), new_picture()], ref_id=ref_id)
    assert_problem(answer, 400, "malformed_request")


def test_at_most_64_files(alice: httpx2.Client) -> None:
    files = [new_picture() for _ in range(65)]
    assert {entry["status"] for entry in results(send(alice, files[:64]))} == {202}
    assert_problem(send(alice, files), 400, "malformed_request")


def test_a_batch_without_files(alice: httpx2.Client) -> None:
    answer = alice.post("/v1/detections/batch", files={"file": new_picture()})
    assert "`file`" in assert_problem(answer, 400, "malformed_request")["detail"]
    assert_problem(alice.post("/v1/detections/batch"), 400, "file_missing")


def test_batch_too_large(alice: httpx2.Client, standin: StandIn) -> None:
    before = standin.queued()
    files = [bytes(MAX_UPLOAD)] * (MAX_BATCH_UPLOAD // MAX_UPLOAD + 3)
    assert_problem(send(alice, files), 413, "upload_too_large")
    assert standin.queued() == before


def test_wait_for_a_batch(pair: list[Replica], alice: httpx2.Client, standin: StandIn) -> None:
    before = set(standin.queued())
    with ThreadPoolExecutor(1) as pool:
        files = [new_picture(), b"text", new_picture(), new_picture()]
        answer = pool.submit(send, alice, files, {"Prefer": "wait=60"})
        wait_for(lambda: value(pair[0].metrics(), "gamma_http_requests_waiting") == 1)
        good, bad, gone = (name for name in standin.queued() if name not in before)
        assert standin.finish(good)
        standin.fail(bad)
        alice.delete(f"/v1/detections/{gone}").raise_for_status()
        entries = results(answer.result())
    assert answer.result().headers["preference-applied"] == "wait=60"
    assert [entry["status"] for entry in entries] == [200, 415, 422, 404]
    assert entries[0]["detection"]["ai_probability"] == 0.7
    assert entries[2]["problem"]["detection"] == f"/v1/detections/{bad}"


def test_wait_too_short(alice: httpx2.Client) -> None:
    entries = results(send(alice, [new_picture()], {"Prefer": "wait=0"}))
    assert [entry["status"] for entry in entries] == [202]


def test_repeated_batch_returns_the_same_detections(
    alice: httpx2.Client, alice_elsewhere: httpx2.Client
) -> None:
    key = {"Idempotency-Key": "batch"}
    files = [new_picture(), new_picture()]
    first = results(send(alice, files, key))
    assert results(send(alice_elsewhere, files, key)) == first
    changed = results(send(alice, [files[0], new_picture()], key))
    assert changed[0] == first[0]
    assert changed[1]["problem"]["code"] == "idempotency_mismatch"


def test_rate_limit_admits_part_of_a_batch(pair_redis_url: str, tmp_path: Path) -> None:
    environment = {"GAMMA_RATE_LIMIT": "3/day", "GAMMA_API_KEYS": "carol=the-key-of-carol-3"}
    with (
        replicas(pair_redis_url, tmp_path, 1, **environment) as (limited,),
        limited.client("the-key-of-carol-3") as carol,
    ):
        answer = send(carol, [new_picture() for _ in range(5)])
        entries = results(answer)
        assert int(answer.headers["retry-after"]) == entries[4]["problem"]["retry_after"]
        assert [entry["status"] for entry in entries] == [202, 202, 202, 429, 429]
        assert entries[3]["problem"]["code"] == "rate_limited"
        assert entries[3]["problem"]["retry_after"] > 60
        assert_problem(send(carol, [new_picture()]), 429, "rate_limited")


def test_accepted_files_are_returned_if_storage_fills_up(tmp_path: Path) -> None:
    pictures = [
        new_picture() + bytes(20_000_000) for _ in range(4)
    ]  # two of them are sent to Redis together
    environment = {"GAMMA_MAX_BATCH_UPLOAD": "200MB", "GAMMA_STORAGE_LIMIT": "1"}
    with (
        private_redis(tmp_path / "redis", 64 * 2**20) as (url, _),
        replicas(url, tmp_path, 1, **environment) as (api,),
        api.client() as client,
        connect(url) as redis,
    ):
        entries = results(send(client, pictures))
        accepted = [entry["detection"]["id"] for entry in entries if entry["detection"]]
        assert [entry["status"] for entry in entries] == [202, 202, 503, 503]
        assert entries[2]["problem"]["code"] == "storage_full"
        assert [name.decode() for name in redis.lrange("rq:queue:gamma", 0, -1)] == accepted
        assert len(redis.keys("gamma:image:*:holders")) == 2
