"""Uploads of every format: headers, refusals and previews."""

from __future__ import annotations

import io
import re

import httpx2
import numpy as np
import pytest
from PIL import Image

from app.contract.schemas import ErrorCode
from app.http.pictures import inspect, refusal
from app.http.problems import ServiceError, describe
from pictures import errors
from pictures.decoding import decode
from pictures.header import ALLOWED_FORMATS, MEDIA_TYPES
from tests import samples
from tests.conftest import Serve, encode, photo

LIMIT = 1_000_000
OTHERS = {
    "SVG": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": b"%PDF-1.7\n",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "Photoshop": b"8BPS\0\1" + bytes(40),
    "ICO": b"\0\0\1\0\1\0" + bytes(40),
    "JPEG XL": b"\xff\x0a" + bytes(40),
    "JPEG 2000": encode(photo(32, 32), "JPEG2000"),
    "MP4": samples.box(b"ftyp", b"isom", bytes(4), b"isomiso2mp41") + bytes(40),
}
# Formats that Pillow would read, if it were asked.
UNASKED = ("PPM", "TGA", "PCX", "ICNS", "SGI", "DDS")


def test_each_picture_error_has_one_code_title_and_status() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    assert {*errors.PICTURE_ERRORS} == {*kinds} - {errors.PictureError}
    assert len({kind.code for kind in errors.PICTURE_ERRORS}) == len(errors.PICTURE_ERRORS)
    for kind in errors.PICTURE_ERRORS:
        shown = describe(refusal(kind("a reason")), "an id")
        assert (shown.code, shown.title, shown.status) == (kind.code, kind.title, kind.status)
        assert shown.detail == "A reason."


@pytest.mark.parametrize("image_format", ALLOWED_FORMATS)
def test_the_header_of_each_format(image_format: str) -> None:
    data = samples.every_format()[image_format]
    found = inspect(data, LIMIT)
    height, width, _ = decode(data, max_pixels=LIMIT).shape
    assert (found.format, found.width, found.height) == (image_format, width, height)
    assert found.bytes == len(data)
    with pytest.raises(ServiceError, match="the limit is 3071") as refused:
        inspect(data, width * height - 1)
    assert refused.value.code is ErrorCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_by_name(name: str) -> None:
    with pytest.raises(ServiceError, match=name) as refused:
        inspect(OTHERS[name], LIMIT)
    assert refused.value.code is ErrorCode.FORMAT_UNSUPPORTED


@pytest.mark.parametrize("image_format", UNASKED)
def test_other_decoders_are_never_used(image_format: str) -> None:
    with pytest.raises(ServiceError) as refused:
        inspect(encode(photo(32, 32), image_format), LIMIT)
    assert refused.value.code in (ErrorCode.NOT_AN_IMAGE, ErrorCode.FORMAT_UNSUPPORTED)


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_truncated_header(image_format: str) -> None:
    data = samples.every_format()[image_format]
    with pytest.raises(ServiceError) as refused:
        inspect(data[:200], LIMIT)
    assert refused.value.code is ErrorCode.IMAGE_TRUNCATED


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(service: Serve) -> dict[str, dict]:
    """Finished detections of one sample of each format."""
    found = {}
    with service.client() as client:
        for name, data in samples.every_format().items():
            answer = client.post(
                "/v1/detections",
                files={"file": data},
                data={"view": "center"},
                headers={"Prefer": "wait=60"},
            )
            assert answer.status_code == 200, answer.text
            found[name] = answer.json()
    return found


@pytest.mark.parametrize("image_format", ALLOWED_FORMATS)
def test_each_format_is_detected_and_returned(
    client: httpx2.Client, records: dict[str, dict], image_format: str
) -> None:
    record = records[image_format]
    assert record["status"] == "succeeded"
    assert record["image"]["format"] == image_format
    answer = client.get(f"/v1/detections/{record['id']}/image")
    assert answer.content == samples.every_format()[image_format]
    assert answer.headers["content-type"] == MEDIA_TYPES[image_format]
    name = re.fullmatch(r'inline; filename="(\w+)\.(\w+)"', answer.headers["content-disposition"])
    assert name is not None
    assert name[1] == record["id"]
    assert name[2] == MEDIA_TYPES[image_format].removeprefix("image/")


@pytest.mark.parametrize("image_format", ALLOWED_FORMATS)
def test_preview_of_each_format(
    client: httpx2.Client, records: dict[str, dict], image_format: str
) -> None:
    record = records[image_format]
    answer = client.get(f"/v1/detections/{record['id']}/image", params={"size": 4096})
    assert answer.headers["content-type"] == "image/jpeg"
    shown = Image.open(io.BytesIO(answer.content))
    assert shown.size == (record["image"]["width"], record["image"]["height"])
    seen = decode(samples.every_format()[image_format], max_pixels=LIMIT)
    difference = samples.corners(np.asarray(shown)) - samples.corners(seen)
    assert np.abs(difference).max() <= 6
    small = client.get(f"/v1/detections/{record['id']}/image", params={"size": 16})
    assert max(Image.open(io.BytesIO(small.content)).size) == 16


def test_preview_of_an_animation_is_its_first_frame(client: httpx2.Client) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue", "lime")]
    for image_format in ("GIF", "WEBP"):
        data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
        location = client.post("/v1/detections", files={"file": data}).headers["location"]
        shown = Image.open(io.BytesIO(client.get(f"{location}/image?size=64").content))
        assert getattr(shown, "n_frames", 1) == 1
        red, green, blue = shown.getpixel((30, 20))
        assert red > 200
        assert max(green, blue) < 50


def test_preview_of_a_broken_picture(client: httpx2.Client) -> None:
    data = encode(photo(400, 300), quality=90)[:9000]
    location = client.post("/v1/detections", files={"file": data}).headers["location"]
    assert client.get(f"{location}/image").content == data
    answer = client.get(f"{location}/image?size=64")
    assert (answer.status_code, answer.json()["code"]) == (422, "image_truncated")


@pytest.mark.parametrize("size", ["15", "8193", "-1", "large", ""])
def test_sizes_out_of_range(client: httpx2.Client, records: dict[str, dict], size: str) -> None:
    answer = client.get(f"/v1/detections/{records['PNG']['id']}/image", params={"size": size})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
