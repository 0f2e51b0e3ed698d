"""Compressed answers, and answers that the client has already."""

from __future__ import annotations

import httpx2

from tests.app.conftest import StandIn, new_picture, post


def test_lists_and_the_page_are_compressed_if_the_client_can(alice: httpx2.Client) -> None:
    for _ in range(3):
        post(alice)
    for path in ("/v1/detections?limit=3", "/", "/static/page.js", "/openapi.json"):
        plain = alice.get(path, headers={"Accept-Encoding": "identity"})
        packed = alice.get(path, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in packed.headers["vary"]
        assert packed.content == plain.content
        assert int(packed.headers["content-length"]) < len(plain.content) / 2


def test_pictures_and_answers_to_uploads_are_not_compressed(
    alice: httpx2.Client, standin: StandIn
) -> None:
    gzip = {"Accept-Encoding": "gzip"}
    pictures = [("files", (f"{number}.png", new_picture())) for number in range(4)]
    batch = alice.post("/v1/detections/batch", files=pictures, headers=gzip)
    assert "content-encoding" not in batch.headers
    name = post(alice, new_picture()).json()["id"]
    assert standin.finish(name)
    path = f"/v1/detections/{name}"
    for file in ("image", "image?size=64", "masks/ai.png", "overlays/ai.png"):
        answer = alice.get(f"{path}/{file}", headers=gzip)
        assert answer.status_code == 200
        assert "content-encoding" not in answer.headers


def test_an_unchanged_record_or_list_is_304(alice: httpx2.Client, standin: StandIn) -> None:
    name = post(alice).json()["id"]
    assert standin.finish(name)
    waiting = post(alice).json()["id"]
    for path in (f"/v1/detections/{name}", "/v1/detections?limit=5", f"/v1/detections?ids={name}"):
        first = alice.get(path)
        tag = first.headers["etag"]
        again = alice.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == "no-store"
    known = {"If-None-Match": alice.get("/v1/detections?limit=5").headers["etag"]}
    assert standin.finish(waiting)
    changed = alice.get("/v1/detections?limit=5", headers=known)
    assert changed.status_code == 200
    assert changed.json()["detections"][0]["status"] == "succeeded"
