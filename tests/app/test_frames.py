"""Several frames of an animation, or pages of a TIFF, as one detection."""

from __future__ import annotations

import base64
import io

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.app.conftest import StandIn, post
from tests.app.replica import assert_problem
from tests.conftest import encode, photo

FRAMES = 3


def scenes(side: int = 160) -> list[Image.Image]:
    return [photo(side, side, 900 + seed) for seed in range(FRAMES)]


def moving(kind: str = "WEBP", side: int = 160, **options: object) -> bytes:
    first, *others = scenes(side)
    return encode(first, kind, save_all=True, append_images=others, duration=500, **options)


@pytest.fixture(scope="module")
def data() -> bytes:
    return moving(lossless=True)


@pytest.fixture
def record(client: httpx2.Client, data: bytes) -> dict:
    """A finished detection of all frames, by a real worker."""
    answer = client.post(
        "/v1/detections",
        files={"file": data},
        data={"frames": "8"},
        headers={"Prefer": "wait=60"},
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_frame_has_a_score_and_the_highest_is_that_of_the_record(record: dict) -> None:
    frames = record["frames"]
    assert [(one["frame"], one["time_ms"]) for one in frames] == [(1, 0), (2, 500), (3, 1000)]
    best = max(frames, key=lambda one: one["ai_probability"])
    assert record["ai_probability"] == best["ai_probability"]
    assert record["verdict"] == best["verdict"]
    assert record["manipulated"] == any(one["manipulated"] for one in frames)
    assert (record["view"]["frame"], record["view"]["frames"]) == (best["frame"], FRAMES)
    assert record["image"]["frames"] == FRAMES


def test_images_show_the_frame_that_the_masks_are_of(client: httpx2.Client, record: dict) -> None:
    path = f"/v1/detections/{record['id']}"
    for one in record["frames"]:
        shown = client.get(f"{path}/image", params={"size": 160, "frame": one["frame"]})
        assert nearest(shown.content) == one["frame"]
    decisive = record["view"]["frame"]
    assert nearest(client.get(f"{path}/image?size=160").content) == decisive
    clear = client.get(f"{path}/overlays/ai.png?composite=true&opacity=0")
    assert nearest(clear.content) == decisive
    refused = client.get(f"{path}/image", params={"size": 160, "frame": 4})
    assert_problem(refused, 404, "not_found")


def nearest(content: bytes) -> int:
    """Number of the frame that a picture shows."""
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)
    distances = [np.abs(shown - np.asarray(scene)).mean() for scene in scenes()]
    assert min(distances) < 8
    return int(np.argmin(distances)) + 1


def test_report_lists_the_frames(client: httpx2.Client, record: dict) -> None:
    report = client.get(f"/v1/detections/{record['id']}/report.html").text
    assert "Examined frames" in report
    assert "<td>3 of 3</td>" in report
    assert f"are of frame {record['view']['frame']}." in report


def test_one_frame_is_examined_by_default(client: httpx2.Client, data: bytes) -> None:
    answer = client.post(
        "/v1/detections", files={"file": data}, headers={"Prefer": "wait=60"}
    ).json()
    assert answer["frames"] is None
    assert (answer["view"]["frame"], answer["view"]["frames"]) == (1, 1)


def test_number_of_frames_is_part_of_what_was_asked(alice: httpx2.Client, standin: StandIn) -> None:
    picture = moving("GIF", side=16)
    first = post(alice, picture, idempotency_key="frames", frames="2").json()
    assert first["view"]["frames"] == 2
    again = post(alice, picture, idempotency_key="frames", frames="2").json()
    assert again["id"] == first["id"]
    assert_problem(
        post(alice, picture, idempotency_key="frames", frames="3"), 422, "idempotency_mismatch"
    )
    assert standin.finish(first["id"])
    assert post(alice, picture, frames="2").json()["cached"]
    assert not post(alice, picture).json()["cached"]
    assert not post(alice, picture, frames="3").json()["cached"]


def test_no_more_frames_than_the_file_has(alice: httpx2.Client) -> None:
    picture = moving("GIF", side=16)
    assert post(alice, picture, frames="8").json()["view"]["frames"] == FRAMES
    still = encode(photo(16, 16, 950), "PNG")
    assert post(alice, still, frames="8").json()["view"]["frames"] == 1


def test_frames_in_json_are_an_integer(alice: httpx2.Client) -> None:
    image = base64.b64encode(moving("GIF", side=16)).decode()
    answer = alice.post("/v1/detections", json={"image": image, "frames": 2})
    assert answer.json()["view"]["frames"] == 2
    for wrong in ("2", True, 2.5, [2]):
        refused = alice.post("/v1/detections", json={"image": image, "frames": wrong})
        assert_problem(refused, 400, "malformed_request")


@pytest.mark.parametrize("frames", ["0", "9", "-1", "two", "2.0", "٢"])
def test_numbers_out_of_range(alice: httpx2.Client, frames: str) -> None:
    assert_problem(post(alice, frames=frames), 400, "malformed_request")


def test_preview_of_an_unfinished_detection_is_not_kept(alice: httpx2.Client) -> None:
    """It shows the first frame, and later the one with the highest score."""
    one, several = (post(alice, moving("GIF", side=17), frames=n).json() for n in ("1", "2"))
    for made, kept in ((one, True), (several, False)):
        answer = alice.get(f"/v1/detections/{made['id']}/image?size=16")
        assert ("immutable" in answer.headers["cache-control"]) is kept
