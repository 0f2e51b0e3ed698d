"""The API of a running service: records, pictures, masks and invalid input."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest
from PIL import Image
from redis import Redis
from rq.suspension import resume, suspend

from model.checkpoint import BUILT_IN, CONFIG_FILE, RESULTS_FILE, digest
from pictures.overlays import DEFAULT_OPACITY
from tests.app.test_openapi import CHECKED_IN
from tests.conftest import Serve, encode, photo, value

SIZE = (640, 400)
TILES = 2  # at a height of 512
MODEL = json.loads((BUILT_IN / CONFIG_FILE).read_text())


def post(client: httpx2.Client, data: bytes, wait: int | None = 60, **fields: str):
    headers = {} if wait is None else {"Prefer": f"wait={wait}"}
    return client.post("/v1/detections", files={"file": data}, data=fields, headers=headers)


@pytest.fixture(scope="module")
def service(shipped_service: Serve) -> Serve:
    return shipped_service


@pytest.fixture(scope="module")
def picture() -> bytes:
    return encode(photo(*SIZE), quality=90)


@pytest.fixture(scope="module")
def record(service: Serve, picture: bytes) -> dict:
    with service.client() as client:
        answer = post(client, picture, ref_id="post-17")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_record_is_complete(record: dict, picture: bytes) -> None:
    assert record["status"] == "succeeded"
    assert 0 <= record["ai_probability"] <= 1
    limits = record["thresholds"]
    called = sum(record["ai_probability"] >= limits[name] for name in ("uncertain", "ai_generated"))
    assert record["verdict"] == ("authentic", "uncertain", "ai_generated")[called]
    area = record["masks"]["manipulation"]["area_fraction"]
    assert record["manipulated"] is (area > limits["manipulated_area"])
    facts = {"name": MODEL["name"], "version": MODEL["version"], "digest": digest(BUILT_IN)}
    assert record["model"] == facts
    assert record["ref_id"] == "post-17"
    assert (record["image"]["width"], record["image"]["height"]) == SIZE
    assert record["image"]["format"] == "JPEG"
    assert record["image"]["bytes"] == len(picture)
    assert record["view"]["mode"] == "auto"
    assert record["view"]["tiles"] == TILES
    assert record["view"]["glances"] == 1
    assert set(record["timings"]) == {"queued", "decode", "forward", "encode", "total"}
    assert record["error"] is None
    assert record["created_at"] < record["finished_at"] < record["expires_at"]


def test_waiting_answer_is_the_stored_record(client: httpx2.Client, record: dict) -> None:
    answer = client.get(f"/v1/detections/{record['id']}")
    assert answer.json() == record
    timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    for name, seconds in record["timings"].items():
        assert float(timing[name]) == pytest.approx(1000 * seconds, abs=0.06)


@pytest.mark.parametrize("head", ["ai", "manipulation"])
def test_mask_and_overlay_have_the_size_of_the_picture(
    client: httpx2.Client, record: dict, head: str
) -> None:
    info = record["masks"][head]
    answers = {name: client.get(info[f"{name}_url"]) for name in ("mask", "overlay")}
    assert all(answer.headers["content-type"] == "image/png" for answer in answers.values())
    mask = Image.open(io.BytesIO(answers["mask"].content))
    overlay = Image.open(io.BytesIO(answers["overlay"].content))
    assert (mask.mode, mask.size) == ("L", SIZE)
    assert overlay.size == SIZE
    values = np.asarray(mask)
    assert values.max() / 255 == pytest.approx(info["max"], abs=1e-3)
    counted = (values / 255 >= record["thresholds"]["mask"]).mean()
    assert counted == pytest.approx(info["area_fraction"], abs=1e-3)
    opacity = np.asarray(overlay.convert("RGBA"))[..., 3]
    np.testing.assert_allclose(opacity, values * DEFAULT_OPACITY, atol=0.5)


def test_image_is_returned_unchanged(client: httpx2.Client, record: dict, picture: bytes) -> None:
    answer = client.get(f"/v1/detections/{record['id']}/image")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == picture


def test_a_known_picture_is_not_computed_again(
    service: Serve, client: httpx2.Client, record: dict, picture: bytes
) -> None:
    crops = value(service.metrics(1), "gamma_crops_total")
    again = post(client, picture, wait=None)
    assert again.status_code == 200
    assert again.json()["id"] != record["id"]
    assert again.json()["cached"] is True
    assert again.json()["ai_probability"] == record["ai_probability"]
    mask = again.json()["masks"]["ai"]["mask_url"]
    assert client.get(mask).content == client.get(record["masks"]["ai"]["mask_url"]).content
    assert value(service.metrics(1), "gamma_crops_total") == crops


def test_a_deleted_detection_is_gone(client: httpx2.Client) -> None:
    location = post(client, encode(photo(64, 64, seed=5))).headers["location"]
    assert client.delete(location).status_code == 204
    assert_problem(client.get(location), 404, "not_found")
    assert_problem(client.delete(location), 404, "not_found")


def test_a_picture_below_the_models_limit_is_not_judged(client: httpx2.Client) -> None:
    side = client.get("/v1/model").json()["min_side"]
    assert side == MODEL["min_side"] > 0
    enough = post(client, encode(photo(side, side))).json()
    assert enough["verdict"]
    assert enough["not_judged"] is None
    small = post(client, encode(photo(300, side - 1))).json()
    assert (small["status"], small["verdict"]) == ("succeeded", None)
    assert small["not_judged"] == "too_small"


def test_center_view(client: httpx2.Client, picture: bytes) -> None:
    record = post(client, picture, view="center").json()
    assert record["view"]["mode"] == "center"
    assert record["view"]["tiles"] == 1


def test_a_glance_has_a_verdict_and_no_masks(client: httpx2.Client, picture: bytes) -> None:
    record = post(client, picture, view="glance").json()
    assert record["status"] == "succeeded"
    assert 0 <= record["ai_probability"] <= 1
    assert record["verdict"]
    assert record["masks"] is record["manipulated"] is None
    assert (record["view"]["tiles"], record["view"]["glances"]) == (0, 1)
    path = f"/v1/detections/{record['id']}"
    for name in ("masks/ai.png", "overlays/manipulation.png"):
        assert_problem(client.get(f"{path}/{name}"), 404, "no_masks")
    assert client.get(f"{path}/image").content == picture


def test_without_wait_the_answer_is_a_location(client: httpx2.Client) -> None:
    answer = post(client, encode(photo(64, 64, seed=6)), wait=None)
    assert answer.status_code == 202
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["cache-control"] == "no-store"
    record = answer.json()
    assert record["status"] == "queued"
    assert answer.headers["location"] == f"/v1/detections/{record['id']}"
    assert client.get(answer.headers["location"]).json()["id"] == record["id"]


def test_wait_of_zero_answers_at_once(client: httpx2.Client, picture: bytes) -> None:
    answer = post(client, picture, wait=0)
    assert answer.status_code in (200, 202)
    assert answer.headers["preference-applied"] == "wait=0"


def test_mask_of_an_unfinished_detection(service: Serve, client: httpx2.Client) -> None:
    with Redis.from_url(f"unix://{service.data_dir / 'redis.sock'}") as redis:
        suspend(redis)  # so that it cannot be finished yet
        try:
            record = post(client, encode(photo(64, 64, seed=7)), wait=None).json()
            answer = client.get(f"/v1/detections/{record['id']}/masks/ai.png")
        finally:
            resume(redis)
    assert_problem(answer, 409, "detection_unfinished")
    assert answer.headers["retry-after"] == "1"


def test_a_large_picture_is_tiled(client: httpx2.Client) -> None:
    record = post(client, encode(photo(1500, 1100), quality=80), view="tiled").json()
    where = {"mode": "tiled", "frames": 1, "tiles": 12, "glances": 1, "frame": 1, "scale": 1.0}
    assert record["view"] == where
    mask = Image.open(io.BytesIO(client.get(record["masks"]["ai"]["mask_url"]).content))
    assert mask.size == (1500, 1100)


def test_a_picture_beyond_the_budget_is_shrunk(client: httpx2.Client) -> None:
    record = post(client, encode(photo(3600, 1800), quality=60)).json()
    assert record["view"]["mode"] == "auto"
    assert record["view"]["tiles"] <= 12
    assert 0.4 < record["view"]["scale"] < 0.7
    assert record["masks"]["ai"]["mask_url"]


def test_exif_orientation_swaps_sides(client: httpx2.Client) -> None:
    turned = photo(300, 200)
    exif = turned.getexif()
    exif[0x0112] = 6
    record = post(client, encode(turned, exif=exif)).json()
    assert (record["image"]["width"], record["image"]["height"]) == (200, 300)
    mask = Image.open(io.BytesIO(client.get(record["masks"]["ai"]["mask_url"]).content))
    assert mask.size == (200, 300)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_formats(client: httpx2.Client, image_format: str) -> None:
    answer = post(client, encode(photo(160, 130), image_format), view="center")
    assert answer.status_code == 200, answer.text
    assert answer.json()["image"]["format"] == image_format


# -- refusals -------------------------------------------------------------------------------------


def assert_problem(answer: httpx2.Response, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def png_bomb(side: int = 30_000) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(2**20))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


TRUNCATED = encode(photo(400, 300), quality=90)[:9000]
REFUSED = {
    "text": (b"this is not a picture", 415, "not_an_image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "format_unsupported"),
    "pdf": (b"%PDF-1.7\n", 415, "format_unsupported"),
    "empty": (b"", 400, "file_empty"),
    "bomb": (png_bomb(), 413, "too_many_pixels"),
    "line": (encode(Image.new("1", (1, 1_000_000)), "PNG"), 422, "too_elongated"),
    "truncated": (TRUNCATED, 422, "image_truncated"),
    "garbled": (encode(photo(64, 64), "PNG")[:60] + b"\0" * 400, 422, "image_undecodable"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_file(client: httpx2.Client, name: str) -> None:
    data, status, code = REFUSED[name]
    document = assert_problem(post(client, data), status, code)
    assert document["detail"]


def test_truncated_file_ends_as_failed(client: httpx2.Client) -> None:
    location = post(client, TRUNCATED).headers["location"]
    record = client.get(location).json()
    assert record["status"] == "failed"
    assert record["error"]["code"] == "image_truncated"
    assert record["ai_probability"] is None
    assert_problem(client.get(f"{location}/masks/ai.png"), 409, "detection_failed")


def test_no_body_and_wrong_bodies(client: httpx2.Client) -> None:
    assert_problem(client.post("/v1/detections"), 400, "file_missing")
    assert_problem(client.post("/v1/detections", json={"file": "x"}), 400, "malformed_request")
    other = client.post("/v1/detections", files={"picture": b"x"})
    assert "`picture`" in assert_problem(other, 400, "malformed_request")["detail"]
    empty = client.post("/v1/detections", files={"ref_id": (None, "x")})
    assert_problem(empty, 400, "file_missing")
    header = {"Content-Type": "multipart/form-data"}
    unbounded = client.post("/v1/detections", content=b"x", headers=header)
    assert_problem(unbounded, 400, "malformed_request")
    two = client.post("/v1/detections", files=[("file", b"1"), ("file", b"2")])
    assert_problem(two, 400, "malformed_request")


@pytest.mark.parametrize("charset", ["undefined", "punycode", "unicode_escape", "utf-16", "none"])
def test_fields_are_utf_8_and_nothing_else(
    client: httpx2.Client, picture: bytes, charset: str
) -> None:
    given = client.build_request(
        "POST", "/v1/detections", files={"file": picture}, data={"ref_id": "\\ud800"}
    )
    given.headers["Content-Type"] += f"; charset={charset}"
    assert_problem(client.send(given), 400, "malformed_request")


def test_content_type_is_case_insensitive(client: httpx2.Client, picture: bytes) -> None:
    given = client.build_request("POST", "/v1/detections", files={"file": picture})
    kind = given.headers["Content-Type"].replace("multipart/form-data", "Multipart/Form-Data")
    given.headers["Content-Type"] = f"{kind}; charset=UTF-8"
    assert client.send(given).is_success


def test_unknown_file_part_is_refused(client: httpx2.Client, picture: bytes) -> None:
    files = [("files", picture), ("file", picture)]
    assert_problem(client.post("/v1/detections/batch", files=files), 400, "malformed_request")


def test_unknown_view_and_long_ref_id(client: httpx2.Client, picture: bytes) -> None:
    assert_problem(post(client, picture, view="upside-down"), 400, "malformed_request")
    for ref_id in ("", "x" * 201, "two\nlines", "bell\x07"):
        assert_problem(post(client, picture, ref_id=ref_id), 400, "malformed_request")
    twice = client.post("/v1/detections", files={"file": picture}, data={"ref_id": ["a", "b"]})
    assert_problem(twice, 400, "malformed_request")


def api_memory(service: Serve) -> int:
    """Resident bytes of the API process."""
    return int(service.child("api").memory_info().rss)


@pytest.mark.parametrize("announced", [True, False])
def test_200_megabytes_are_refused_without_being_stored(service: Serve, announced: bool) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'
    megabytes = 200

    def body() -> Iterator[bytes]:
        yield start
        for _ in range(megabytes):
            yield bytes(2**20)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    if announced:
        headers["Content-Length"] = str(len(start) + megabytes * 2**20)
    counter = 'gamma_http_rejections_total{reason="upload_too_large"}'
    refused = value(service.metrics(), counter, default=0)
    before = api_memory(service)
    with service.client() as client:
        try:
            answer = client.post("/v1/detections", content=body(), headers=headers)
        except httpx2.NetworkError:
            pass  # the server answered and closed while we were still sending
        else:
            assert_problem(answer, 413, "upload_too_large")
        assert client.get("/livez").status_code == 200
    assert value(service.metrics(), counter) == refused + 1
    assert api_memory(service) - before < 100 * 2**20


def test_unknown_things(client: httpx2.Client) -> None:
    assert_problem(client.get("/v1/detections/no-such-id"), 404, "not_found")
    assert_problem(client.get("/v1/nowhere"), 404, "not_found")
    answer = client.delete("/v1/model")
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


# -- all responses --------------------------------------------------------------------------------


def test_request_id_is_returned_or_generated(client: httpx2.Client) -> None:
    given = client.get("/livez", headers={"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    hostile = client.get("/livez", headers={"X-Request-ID": 'a"b{}'})
    assert re.fullmatch("[0-9a-f]{32}", hostile.headers["x-request-id"])


def test_content_security_policy_is_strict(client: httpx2.Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_system_routes(client: httpx2.Client) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "workers": 1, "suspended": False}
    model = client.get("/v1/model").json()
    assert model["trained"] is True
    assert "Scores are no proof. Measured on" in model["notice"]
    found = round(100 * model["measured"]["rows"][0]["tpr_at_fpr_5"])
    assert f"of 100 AI-generated pictures it finds {found} while calling 5" in model["notice"]
    assert model["measured"]["conditions"] not in model["notice"]  # they are for the card
    assert model["measured"] == json.loads((BUILT_IN / RESULTS_FILE).read_text())
    assert model["parameters"] > 3_000_000


def test_document_is_the_checked_in_one(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document == json.loads(CHECKED_IN.read_text())


def test_metrics_of_both_processes(service: Serve, record: dict) -> None:
    api, worker = service.metrics(0), service.metrics(1)
    assert 'route="/v1/detections",status="200"' in api
    assert "gamma_queue_depth" in api
    assert "gamma_workers 1.0" in api
    assert "gamma_worker_up 1.0" in worker
    assert f'gamma_score_count{{model_version="{MODEL["version"]}"}}' in worker
    assert record["id"] not in api + worker


def test_hostile_requests_create_no_new_series(service: Serve) -> None:
    with service.client() as client:
        client.get("/static/page.js").raise_for_status()
        client.get("/nowhere")
        before = service.metrics().count("\n")
        for number in range(50):
            client.get(f"/static/{number}")
            client.get(f"/nowhere/{number}")
            client.get(f"/v1/detections/{number}")
            client.request(f"ODD{number}", "/")
        after = service.metrics()
    assert 'route="/static",status="200"' in after
    assert 'route="unmatched",status="404"' in after
    assert after.count("\n") - before < 100  # three new pairs of route and status, one method
