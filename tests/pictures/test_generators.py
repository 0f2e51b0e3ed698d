"""Texts that generators write into files."""

from __future__ import annotations

import gzip
import io
import json
import zlib

import pytest
from PIL import Image

from pictures.origin import Says, Source
from pictures.png import chunk
from pictures.provenance import editors, exif
from tests.conftest import photo
from tests.provenance import (
    PARAMETERS,
    by_source,
    described,
    read,
    with_stealth,
    with_text,
)
from tests.samples import encoded

GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0]},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "low quality", "clip": ["4", 1]}},
    "9": {"class_type": "StringNode", "inputs": {"value": "a lighthouse"}},
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("extra", ["", " über den Wolken"])
def test_parameters_in_png(compressed: bool, extra: str) -> None:
    text = PARAMETERS.replace("dusk", f"dusk{extra}")
    (found,) = read(with_text(compressed, parameters=text), "PNG")
    assert (found.source, found.says) == (Source.TEXT, Says.GENERATED)
    assert found.by == "Stable Diffusion web UI"
    assert found.details["prompt"] == f"a lighthouse at dusk{extra}, <b>oil</b>"
    assert found.details["negative_prompt"] == "blurry"
    assert found.details["model"] == "dreamshaper_8"


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
@pytest.mark.parametrize("charset", ["Unicode", "Ascii"])
def test_parameters_in_the_exif_comment(image_format: str, charset: str) -> None:
    comment = {"Photo.UserComment": f"charset={charset} {PARAMETERS}"}
    data = described(encoded(photo(64, 48), image_format), exif=comment)
    found = by_source(read(data, image_format))[Source.TEXT]
    assert found.details["model"] == "dreamshaper_8"
    assert found.details["negative_prompt"] == "blurry"


def test_user_comments_of_either_byte_order() -> None:
    for order in ("be", "le"):
        comment = b"UNICODE\0" + "prompt, größer".encode(f"utf-16-{order}")
        assert exif._comment(comment) == "prompt, größer"


@pytest.mark.parametrize(
    ("texts", "by", "model", "prompt"),
    [
        ({"prompt": json.dumps(GRAPH)}, "ComfyUI", "sdxl.safetensors", "a lighthouse"),
        ({"workflow": json.dumps({"nodes": [{"id": 1}]})}, "ComfyUI", None, None),
        (
            {
                "invokeai_metadata": json.dumps(
                    {"positive_prompt": "a lighthouse", "model": {"model_name": "sd-1.5"}}
                )
            },
            "InvokeAI",
            "sd-1.5",
            "a lighthouse",
        ),
        (
            {"sd-metadata": json.dumps({"image": {"prompt": [{"prompt": "a lighthouse"}]}})},
            "InvokeAI",
            None,
            "a lighthouse",
        ),
        (
            {
                "Software": "NovelAI",
                "Source": "NovelAI Diffusion V4",
                "Description": "a lighthouse",
                "Comment": json.dumps({"uc": "blurry"}),
            },
            "NovelAI",
            "NovelAI Diffusion V4",
            "a lighthouse",
        ),
        (
            {
                "Description": "a lighthouse --v 6.1 --ar 3:2 "
                "Job ID: 01234567-89ab-cdef-0123-456789abcdef"
            },
            "Midjourney",
            "6.1",
            "a lighthouse --v 6.1 --ar 3:2",
        ),
        (
            {
                "parameters": json.dumps(
                    {"sui_image_params": {"prompt": "a lighthouse", "model": "flux1-dev"}}
                )
            },
            "SwarmUI",
            "flux1-dev",
            "a lighthouse",
        ),
        (
            {
                "fooocus_scheme": "fooocus",
                "parameters": json.dumps({"Prompt": "a lighthouse", "base_model": "juggernaut"}),
            },
            "Fooocus",
            "juggernaut",
            "a lighthouse",
        ),
        ({"AIGC": json.dumps({"Label": "1", "ContentProducer": "Doubao"})}, "Seedream", None, None),
        ({"Software": "DALL-E 3"}, "DALL·E", None, None),
    ],
)
def test_text_of_generators(
    texts: dict[str, str], by: str, model: str | None, prompt: str | None
) -> None:
    (found,) = read(with_text(**texts), "PNG")
    assert (found.source, found.says, found.by) == (Source.TEXT, Says.GENERATED, by)
    assert (found.details.get("model"), found.details.get("prompt")) == (model, prompt)


@pytest.mark.parametrize(
    "texts",
    [
        {"Software": "Adobe ImageReady"},
        {"Description": "a photo of a ship"},
        {"prompt": "my diary"},
        {"workflow": "[1]"},
        {"prompt": json.dumps({"1": 2})},
        {"parameters": "{" * 2000},
        {"prompt": '{"a":' * 200_000},
        {"Comment": "Created with GIMP"},
        {"AIGC": json.dumps({"Label": "3"})},
    ],
)
def test_texts_without_a_generator(texts: dict[str, str]) -> None:
    assert all(one.says is not Says.GENERATED for one in read(with_text(**texts), "PNG"))


def test_graph_with_a_cycle() -> None:
    loop = {
        "1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0]}},
        "2": {"class_type": "Combine", "inputs": {"conditioning": ["3", 0]}},
        "3": {"class_type": "Combine", "inputs": {"conditioning": ["2", 0]}},
    }
    (found,) = read(with_text(prompt=json.dumps(loop)), "PNG")
    assert "prompt" not in found.details


def test_hidden_text() -> None:
    known = {"Software": "NovelAI", "Description": "a lighthouse", "Source": "V4"}
    (found,) = read(with_stealth(gzip.compress(json.dumps(known).encode())), "PNG")
    assert (found.source, found.by) == (Source.ALPHA, "NovelAI")
    assert found.details["prompt"] == "a lighthouse"
    (found,) = read(with_stealth(PARAMETERS.encode(), b"stealth_pnginfo"), "PNG")
    assert (found.source, found.details["model"]) == (Source.ALPHA, "dreamshaper_8")


@pytest.mark.parametrize("filtering", range(5))
def test_hidden_text_with_each_row_filter(filtering: int) -> None:
    """The first column is unfiltered separately, for each PNG filter."""
    data = with_stealth(PARAMETERS.encode(), b"stealth_pnginfo")
    picture = Image.open(io.BytesIO(data))
    width, height = picture.size
    pixels, raw, before = picture.tobytes(), b"", bytes(4 * width)
    for row in range(height):
        line = pixels[4 * width * row :][: 4 * width]
        raw += bytes([filtering]) + bytes(
            (value - _predicted(filtering, line, before, at)) % 256 for at, value in enumerate(line)
        )
        before = line
    rows = chunk(b"IDAT", zlib.compress(raw))
    data = data[: data.index(b"IDAT") - 4] + rows + chunk(b"IEND", b"")
    assert Image.open(io.BytesIO(data)).tobytes() == pixels
    (found,) = read(data, "PNG")
    assert found.source is Source.ALPHA


def _predicted(filtering: int, line: bytes, before: bytes, at: int) -> int:
    left = line[at - 4] if at >= 4 else 0
    corner, above = before[at - 4] if at >= 4 else 0, before[at]
    if filtering == 4:
        distances = [abs(left + above - corner - one) for one in (left, above, corner)]
        return (left, above, corner)[distances.index(min(distances))]
    return (0, left, above, (left + above) // 2)[filtering]


def test_opacity_without_hidden_text() -> None:
    picture = photo(64, 96).convert("RGBA")
    assert read(encoded(picture, "PNG"), "PNG") == []


@pytest.mark.parametrize(
    ("program", "generator", "editor"),
    [
        ("Adobe Photoshop 25.0", None, True),
        ("Adobe Firefly 2", "Adobe Firefly", False),
        ("Midjourney", "Midjourney", False),
        ("ChatGPT", "OpenAI", False),
        ("GIMP 2.10", None, True),
        ("HDR+ 1.0.3", None, False),
        ("17.5.1", None, False),
        ("", None, False),
    ],
)
def test_programs_by_name(program: str, generator: str | None, editor: bool) -> None:
    assert editors.generator(program) == generator
    assert editors.is_editor(program) is editor
