"""Heat maps: colours, HTTP, caching and refusals."""

from __future__ import annotations

import contextlib
import io
import zipfile

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pictures import overlays
from pictures.blending import heat_map
from pictures.decoders import Decoders
from pictures.overlays import COLORMAPS, Colormap
from tests.conftest import Serve, encode, photo

SIZE = (320, 200)


def mask(width: int = 256, height: int = 3) -> Image.Image:
    """Every value from left to right."""
    return Image.fromarray(np.tile(np.arange(width, dtype=np.uint8), (height, 1)))


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


@pytest.mark.parametrize("colormap", Colormap)
@pytest.mark.parametrize("opacity", [0, 0.25, 0.6, 1])
def test_colour_and_opacity_of_each_value(colormap: Colormap, opacity: float) -> None:
    found = pixels(overlays.render(encode(mask(), "PNG"), colormap, opacity))
    assert (found[1, :, :3] == COLORMAPS[colormap]).all()
    assert (found[1, :, 3] == np.rint(np.arange(256) * opacity)).all()


def test_a_rendered_mask_is_the_heat_map_of_the_command_line() -> None:
    smooth = photo(90, 70).convert("L")
    found = pixels(overlays.render(encode(smooth, "PNG"), opacity=1))
    assert (found == np.asarray(heat_map(smooth, COLORMAPS[Colormap.HEAT].tobytes()))).all()


def test_a_heat_map_of_another_file_is_an_error() -> None:
    for picture in (mask().convert("RGB"), mask().convert("P"), mask().convert("1")):
        with pytest.raises(ValueError, match="8-bit grey"):
            overlays.render(encode(picture, "PNG"))


def test_viridis_is_that_of_matplotlib() -> None:
    import matplotlib

    known = matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255
    assert np.abs(COLORMAPS[Colormap.VIRIDIS] - known).max() <= 8


@pytest.mark.parametrize("opacity", [0, 0.5, 1])
def test_a_composite_is_the_heat_map_laid_over_the_picture(opacity: float) -> None:
    smooth = photo(90, 1300, seed=1).convert("L")  # several bands
    picture = photo(90, 1300)
    png = encode(smooth, "PNG")
    layer = Image.open(io.BytesIO(overlays.render(png, Colormap.VIRIDIS, opacity)))
    expected = Image.alpha_composite(picture.convert("RGBA"), layer.convert("RGBA"))
    with contextlib.closing(Decoders(1, max_pixels=10**6)) as decoders:
        blended = overlays.composite(
            decoders, encode(picture, "PNG"), png, Colormap.VIRIDIS, opacity
        )
    made = Image.open(io.BytesIO(blended))
    assert made.mode == "RGB"
    difference = np.asarray(made).astype(int) - np.asarray(expected.convert("RGB"))
    assert np.abs(difference).max() <= 1


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def turned() -> bytes:
    """A photograph that lies on its side, as cameras store them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(photo(*SIZE), quality=95, exif=exif)


@pytest.fixture(scope="module")
def record(service: Serve, turned: bytes) -> dict:
    with service.client() as client:
        answer = client.post(
            "/v1/detections", files={"file": turned}, headers={"Prefer": "wait=60"}
        )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_overlay_over_http_is_the_rendered_mask(client: httpx2.Client, record: dict) -> None:
    urls = record["masks"]["manipulation"]
    stored = client.get(urls["mask_url"]).content
    plain = client.get(urls["overlay_url"])
    assert (pixels(plain.content) == pixels(overlays.render(stored))).all()
    chosen = client.get(urls["overlay_url"], params={"opacity": 0.3, "colormap": "viridis"})
    assert (pixels(chosen.content) == pixels(overlays.render(stored, Colormap.VIRIDIS, 0.3))).all()
    assert chosen.headers["etag"] != plain.headers["etag"]


def test_composite_is_upright_and_of_picture_size(
    client: httpx2.Client, record: dict, turned: bytes
) -> None:
    url = record["masks"]["ai"]["overlay_url"]
    answer = client.get(url, params={"composite": True, "opacity": 0})
    upright = Image.open(io.BytesIO(turned)).transpose(Image.Transpose.ROTATE_270)
    made = Image.open(io.BytesIO(answer.content))
    assert (made.mode, made.size) == ("RGB", (SIZE[1], SIZE[0]))
    assert (np.asarray(made) == np.asarray(upright)).all()
    strong = client.get(url, params={"composite": True, "opacity": 1, "colormap": "viridis"})
    assert strong.content != answer.content


@pytest.mark.parametrize(
    "query",
    [
        {"opacity": "1.01"},
        {"opacity": "-0.1"},
        {"opacity": "nan"},
        {"opacity": "much"},
        {"colormap": "jet"},
        {"colormap": "turbo"},
        {"composite": "perhaps"},
        {"size": "15"},
        {"size": "8193"},
    ],
)
def test_invalid_values_are_refused(
    client: httpx2.Client, record: dict, query: dict[str, str]
) -> None:
    answer = client.get(record["masks"]["ai"]["overlay_url"], params=query)
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed_request"
    assert next(iter(query)) in answer.json()["detail"]


def test_masks_and_overlays_of_a_size_are_area_averages(
    client: httpx2.Client, record: dict
) -> None:
    urls = record["masks"]["ai"]
    whole = Image.open(io.BytesIO(client.get(urls["mask_url"]).content))
    assert whole.size == (SIZE[1], SIZE[0])
    small = Image.open(io.BytesIO(client.get(urls["mask_url"], params={"size": 80}).content))
    assert (small.mode, small.size) == ("L", (50, 80))
    blocks = np.asarray(whole).reshape(80, 4, 50, 4).mean((1, 3))
    assert np.abs(np.asarray(small) - blocks).max() <= 1
    layer = client.get(urls["overlay_url"], params={"size": 80, "opacity": 1}).content
    assert (pixels(layer) == pixels(overlays.render(encode(small, "PNG"), opacity=1))).all()
    larger = client.get(urls["mask_url"], params={"size": 8192})
    assert larger.content == client.get(urls["mask_url"]).content


def test_archive_of_a_size_has_the_same_files(client: httpx2.Client, record: dict) -> None:
    query = {"ids": record["id"], "size": "80"}
    answer = client.get("/v1/detections/archive", params=query)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        for kind in ("masks", "overlays"):
            made = file.read(f"{record['id']}/{kind}/ai.png")
            alone = client.get(f"/v1/detections/{record['id']}/{kind}/ai.png?size=80")
            assert made == alone.content
            assert Image.open(io.BytesIO(made)).size == (50, 80)


def test_composite_of_a_size_is_the_preview_with_the_small_mask(
    client: httpx2.Client, record: dict
) -> None:
    url = record["masks"]["ai"]["overlay_url"]
    query = {"composite": True, "size": 80}
    made = Image.open(io.BytesIO(client.get(url, params={**query, "opacity": 0}).content))
    preview = client.get(f"/v1/detections/{record['id']}/image", params={"size": 80}).content
    assert (made.mode, made.size) == ("RGB", (50, 80))
    difference = np.asarray(made).astype(int) - np.asarray(Image.open(io.BytesIO(preview)))
    assert np.abs(difference).mean() < 2  # JPEG
    layer = Image.open(io.BytesIO(client.get(url, params={"size": 80, "opacity": 1}).content))
    expected = Image.alpha_composite(made.convert("RGBA"), layer.convert("RGBA"))
    strong = Image.open(io.BytesIO(client.get(url, params={**query, "opacity": 1}).content))
    difference = np.asarray(strong).astype(int) - np.asarray(expected.convert("RGB"))
    assert np.abs(difference).max() <= 1


def _paths(record: dict) -> list[str]:
    base, urls = f"/v1/detections/{record['id']}", record["masks"]["ai"]
    return [
        f"{base}/image",
        f"{base}/image?size=64",
        urls["mask_url"],
        f"{urls['mask_url']}?size=64",
        urls["overlay_url"],
        f"{urls['overlay_url']}?size=64",
        f"{urls['overlay_url']}?colormap=viridis",
        f"{urls['overlay_url']}?composite=true",
        f"{urls['overlay_url']}?composite=true&size=64",
    ]


def test_if_none_match_returns_304(client: httpx2.Client, record: dict) -> None:
    tags = []
    for path in _paths(record):
        first = client.get(path)
        tag = first.headers["etag"]
        tags.append(tag)
        assert tag.startswith('"')
        for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            again = client.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
            assert again.headers["cache-control"].startswith("private")
        changed = client.get(path, headers={"If-None-Match": '"other"'})
        assert (changed.status_code, changed.content) == (200, first.content)
    assert len(set(tags)) == len(tags)


def test_responses_are_cacheable_until_the_detection_expires(
    client: httpx2.Client, record: dict
) -> None:
    for path in _paths(record):
        answer = client.get(path)
        private, age, immutable = answer.headers["cache-control"].split(", ")
        assert (private, immutable) == ("private", "immutable")
        assert 0 < int(age.removeprefix("max-age=")) <= 86_400
        assert answer.headers["vary"] == "Authorization"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_if_none_match_after_deletion_returns_404(client: httpx2.Client, turned: bytes) -> None:
    answer = client.post("/v1/detections", files={"file": turned}, headers={"Prefer": "wait=60"})
    paths = _paths(answer.json())
    tags = [client.get(path).headers["etag"] for path in paths]
    assert client.delete(f"/v1/detections/{answer.json()['id']}").status_code == 204
    for path, tag in zip(paths, tags, strict=True):
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 404
