"""Uploads without a form: the bytes alone, and base64 in JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx2
import pytest

from tests.app.conftest import MAX_UPLOAD, new_picture, post
from tests.app.replica import assert_problem
from tests.conftest import encode, photo

RAW = {"Content-Type": "image/png"}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """A body without a length, in chunks of this size."""
    return (data[at : at + size] for at in range(0, len(data), size))


def test_a_raw_body_is_the_same_request_as_the_form(alice: httpx2.Client) -> None:
    picture = new_picture()
    key = {"Idempotency-Key": "in-three-forms"}
    form = post(alice, picture, ref_id="a/b", view="center", idempotency_key=key["Idempotency-Key"])
    raw = alice.post(
        "/v1/detections?ref_id=a/b&view=center", content=picture, headers={**RAW, **key}
    )
    encoded = {"image": base64.b64encode(picture).decode(), "ref_id": "a/b", "view": "center"}
    in_json = alice.post("/v1/detections", json=encoded, headers=key)
    for answer in (raw, in_json):
        assert answer.status_code == 202, answer.text
        assert answer.json() == form.json()
    other = alice.post("/v1/detections?ref_id=other", content=picture, headers={**RAW, **key})
    assert_problem(other, 422, "idempotency_mismatch")


@pytest.mark.parametrize("kind", ["image/jpeg", "image/x-anything", "application/octet-stream"])
def test_the_bytes_decide_not_the_type(alice: httpx2.Client, kind: str) -> None:
    picture = new_picture()
    answer = alice.post("/v1/detections", content=picture, headers={"Content-Type": kind})
    assert answer.status_code == 202
    assert answer.json()["image"]["format"] == "PNG"
    stored = alice.get(f"/v1/detections/{answer.json()['id']}/image")
    assert stored.content == picture


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("escaped", [False, True])
def test_base64_in_chunks(alice: httpx2.Client, size: int, escaped: bool) -> None:
    picture = encode(photo(8, 8, size), "PNG")  # in fewer chunks than one read may return
    assert len(picture) < 500
    body = json.dumps({"ref_id": '"image": "x', "image": base64.b64encode(picture).decode()})
    body = body.replace("/", "\\/") if escaped else body
    headers = {"Content-Type": "application/json"}
    answer = alice.post("/v1/detections", content=pieces(body.encode(), size), headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["ref_id"] == '"image": "x'
    stored = alice.get(f"/v1/detections/{answer.json()['id']}/image")
    assert stored.content == picture


GOOD = base64.b64encode(b"GIF89a").decode()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        "nothing",
        '{"image": 5}',
        '{"image": null, "view": "center"',
        '{"image": "AAA"}',
        '{"image": "AA==AAAA"}',
        '{"image": "A\\u0041AA"}',
        '{"image": "AAA A"}',
        '{"image": "AAAA',
        f'{{"image": "{GOOD}", "image": "{GOOD}"}}',
        f'{{"image": "{GOOD}", "view": "center", "view": "center"}}',
        f'{{"image": "{GOOD}", "view": ["center"]}}',
        f'{{"image": "{GOOD}", "file": "x"}}',
        f'{{"other": {{"image": "{GOOD}"}}}}',
        '{"\\ud800": 1}',
        f'{{"image": "{GOOD}"}} {{}}',
        f'{{"image": "{GOOD}", "ref_id": "{"x" * 100_000}"}}',
    ],
)
def test_invalid_json(alice: httpx2.Client, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = alice.post("/v1/detections", content=body.encode(), headers=headers)
    assert_problem(answer, 400, "malformed_request")


def test_json_without_a_picture(alice: httpx2.Client) -> None:
    answer = alice.post("/v1/detections", json={"view": "center"})
    assert_problem(answer, 400, "file_missing")


@pytest.mark.parametrize("announced", [True, False])
def test_limits_are_those_of_the_form(alice: httpx2.Client, announced: bool) -> None:
    large = b"\x89PNG" + bytes(MAX_UPLOAD)
    encoded = json.dumps({"image": base64.b64encode(large).decode()}).encode()
    for body, kind in ((large, "image/png"), (encoded, "application/json")):
        content = body if announced else pieces(body, 10_000)
        answer = alice.post("/v1/detections", content=content, headers={"Content-Type": kind})
        assert_problem(answer, 413, "upload_too_large")


def test_empty_and_unknown_bodies(alice: httpx2.Client) -> None:
    assert_problem(alice.post("/v1/detections", content=b"", headers=RAW), 400, "file_empty")
    assert_problem(alice.post("/v1/detections", json={"image": ""}), 400, "file_empty")
    text = {"Content-Type": "text/plain"}
    answer = alice.post("/v1/detections", content=new_picture(), headers=text)
    assert_problem(answer, 400, "file_missing")
    batch = alice.post("/v1/detections/batch", content=new_picture(), headers=RAW)
    assert_problem(batch, 400, "file_missing")


def test_a_field_is_given_once(alice: httpx2.Client) -> None:
    twice = alice.post(
        "/v1/detections?view=center", files={"file": new_picture()}, data={"view": "center"}
    )
    assert_problem(twice, 400, "malformed_request")
    unknown = alice.post("/v1/detections?size=3", content=new_picture(), headers=RAW)
    assert_problem(unknown, 400, "malformed_request")


def test_fetching_is_off_by_default(alice: httpx2.Client) -> None:
    url = "https://www.example.com/photo.jpg"
    for answer in (
        alice.post("/v1/detections", json={"url": url}),
        alice.post("/v1/detections", params={"url": url}),
        alice.post("/v1/detections", files={"url": (None, url)}),
    ):
        assert_problem(answer, 422, "fetch_refused")
