"""The service with pictures and masks in a bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from app.command.embedded import running_url
from tests.app.conftest import wait_for
from tests.app.replica import assert_problem
from tests.buckets import SECRET, Bucket, BucketServer
from tests.conftest import Serve, encode, photo

FIRST, SECOND, OTHER = (encode(photo(64, 64, seed)) for seed in (11, 12, 13))


@pytest.fixture(scope="module")
def serving(
    bucket_server: BucketServer, tmp_path_factory: pytest.TempPathFactory, small_model: Path
) -> Iterator[tuple[Serve, Bucket]]:
    bucket = Bucket(bucket_server)
    running = Serve(
        tmp_path_factory.mktemp("bucket") / "data",
        GAMMA_STORE=bucket.url,
        GAMMA_LOG_LEVEL="debug",
        GAMMA_CHECKPOINT=str(small_model),
    )
    try:
        yield running.wait_until_ready(), bucket
    finally:
        running.stop()
    assert SECRET not in running.log


@pytest.fixture
def client(serving: tuple[Serve, Bucket]) -> Iterator[httpx2.Client]:
    with serving[0].client() as connected:
        yield connected


@pytest.fixture
def bucket(serving: tuple[Serve, Bucket]) -> Iterator[Bucket]:
    yield serving[1]
    serving[1].server.link.open()


def detect(client: httpx2.Client, picture: bytes) -> dict:
    answer = client.post("/v1/detections", files={"file": picture}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_life_of_a_detection(
    serving: tuple[Serve, Bucket], client: httpx2.Client, bucket: Bucket
) -> None:
    record = detect(client, FIRST)
    path = f"/v1/detections/{record['id']}"
    mask = client.get(record["masks"]["ai"]["mask_url"]).content
    other = client.get(record["masks"]["manipulation"]["mask_url"]).content
    assert client.get(f"{path}/image").content == FIRST
    assert client.get(record["masks"]["ai"]["overlay_url"]).status_code == 200
    sealed = sorted(len(content) + 28 for content in (FIRST, mask, other))  # nonce and tag
    assert sorted(map(len, bucket.contents())) == sealed
    assert all(key.startswith(f"gamma/{record['id']}/") for key in bucket.objects())

    url = running_url(serving[0].data_dir)
    assert url is not None
    with Redis.from_url(url) as redis:
        held = redis.hmget(f"gamma:detection:{record['id']}", "image", "masks")
        image, masks = (holding.partition(b" ")[2] for holding in held)
        entries = [redis.get(image), *redis.hvals(masks)]
        assert [len(entry) for entry in entries] == [64] * 3  # names and keys, no bytes

    again = detect(client, FIRST)
    assert again["cached"]
    assert len(bucket.objects()) == 2 * 3
    assert client.delete(path).status_code == 204
    assert_problem(client.get(f"{path}/image"), 404, "not_found")
    assert client.get(f"/v1/detections/{again['id']}/image").content == FIRST
    assert client.get(again["masks"]["ai"]["mask_url"]).content == mask
    assert client.delete(f"/v1/detections/{again['id']}").status_code == 204
    assert bucket.objects() == []


def test_objects_are_encrypted(client: httpx2.Client, bucket: Bucket) -> None:
    canary = secrets.token_bytes(64)
    picture = encode(photo(64, 64, 14), comment=canary)
    record = detect(client, picture)
    mask = client.get(record["masks"]["ai"]["mask_url"]).content
    for content in bucket.contents():
        for start in range(0, 64, 16):
            assert canary[start : start + 16] not in content
        assert b"PNG" not in content[:4]
        assert mask[-64:-16] not in content
    assert client.delete(f"/v1/detections/{record['id']}").status_code == 204


def test_modified_objects_are_not_served(
    serving: tuple[Serve, Bucket], client: httpx2.Client, bucket: Bucket
) -> None:
    record = detect(client, encode(photo(64, 64, 15)))
    first, second, third = bucket.objects()

    def content(key: str) -> bytes:
        return bucket.s3.get_object(Bucket=bucket.name, Key=key)["Body"].read()

    changed = {first: content(second), second: content(second)[:-1], third: b""}
    for key, body in changed.items():
        bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=body)
    path = f"/v1/detections/{record['id']}"
    for below in ("/image", "/masks/ai.png", "/masks/manipulation.png"):
        assert client.get(path + below).status_code in (404, 410)
    wait_for(lambda: serving[0].log.count("object_damaged") == 3)
    assert client.delete(path).status_code == 204


def test_repeated_request_stores_one_picture(client: httpx2.Client, bucket: Bucket) -> None:
    names = set()
    for picture in (SECOND, SECOND, OTHER):
        answer = client.post(
            "/v1/detections",
            files={"file": picture},
            headers={"Idempotency-Key": "one", "Prefer": "wait=60"},
        )
        if picture is OTHER:
            assert_problem(answer, 422, "idempotency_mismatch")
        else:
            names.add(answer.json()["id"])
    assert len(names) == 1
    assert len(bucket.objects()) == 3
    assert client.delete(f"/v1/detections/{names.pop()}").status_code == 204
    assert bucket.objects() == []


def test_outage_is_reported_and_loses_nothing(client: httpx2.Client, bucket: Bucket) -> None:
    record = detect(client, FIRST)
    path = f"/v1/detections/{record['id']}"
    assert client.get("/readyz").status_code == 200
    bucket.server.link.cut()
    upload = client.post("/v1/detections", files={"file": OTHER})
    assert_problem(upload, 503, "storage_unavailable")
    assert upload.headers["retry-after"] == "5"
    batch = client.post("/v1/detections/batch", files=[("files", OTHER), ("files", SECOND)])
    assert_problem(batch, 503, "storage_unavailable")
    for answer in (
        client.get(f"{path}/image"),
        client.get(record["masks"]["ai"]["mask_url"]),
        client.delete(path),
        client.get("/readyz"),
    ):
        assert_problem(answer, 503, "storage_unavailable")
    assert client.get(path).json() == record
    assert client.get("/livez").status_code == 200
    bucket.server.link.open()
    assert client.get("/readyz").status_code == 200
    assert client.get(f"{path}/image").content == FIRST
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert bucket.objects() == []
    assert client.get("/v1/detections").json()["detections"] == []
