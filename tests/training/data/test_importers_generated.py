"""The importers of AI-generated pictures, each on a small tree in its exact layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.data.importing import (
    REGION,
    Imported,
    drawn,
    picture,
    plant,
    rows_of_csv,
)
from training.data.importers import LAYOUTS
from training.data.importers.generated import genimage_generator
from training.data.importers.layout import LayoutError, Problem
from training.data.labels import Kind


@pytest.mark.parametrize(
    ("folder", "generator"),
    [
        ("imagenet_ai_0508_adm", "adm"),
        ("imagenet_ai_0419_biggan", "biggan"),
        ("imagenet_glide", "glide"),
        ("imagenet_midjourney", "midjourney"),
        ("imagenet_ai_0419_sdv4", "sd-1.4"),
        ("imagenet_ai_0424_sdv5", "sd-1.5"),
        ("imagenet_ai_0419_vqdm", "vqdm"),
        ("imagenet_ai_0424_wukong", "wukong"),
        ("ADM", "adm"),
        ("BigGAN", "biggan"),
        ("Midjourney", "midjourney"),
        ("VQDM", "vqdm"),
        ("stable_diffusion_v_1_4", "sd-1.4"),
        ("stable_diffusion_v_1_5", "sd-1.5"),
        ("sd14", "sd-1.4"),
        ("SDv1.5", "sd-1.5"),
        ("dalle2", None),
    ],
)
def test_spellings_of_genimage(folder: str, generator: str | None) -> None:
    assert genimage_generator(folder) == generator


def genimage(root: Path, count: int) -> Path:
    """Three generators in three common layouts."""
    sides = {
        "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/val": ("ai", "nature"),
        "imagenet_ai_0508_adm/train": ("ai", "nature"),
        "BigGAN": ("1_fake", "0_real"),
    }
    for seed, (folder, (fake, real)) in enumerate(sides.items()):
        for number in range(count):
            first = 1000 * seed + 2 * number
            plant(
                root,
                {
                    f"{folder}/{fake}/{seed}_{number}.png": picture(first, "PNG"),
                    f"{folder}/{real}/n{seed}_{number}.JPEG": picture(first + 1),
                },
            )
    return root


def test_genimage(root: Path) -> None:
    done = Imported("genimage", genimage(root, 2))
    assert Counter(row.generator for row in done.rows) == {
        None: 6,
        "adm": 2,
        "biggan": 2,
        "sd-1.4": 2,
    }
    splits = {row.generator: row.split for row in done.rows if row.generator}
    assert splits == {"adm": "train", "biggan": None, "sd-1.4": "test"}
    assert done.by_name["n0_0"].source_id == "imagenet/n0_0"
    published = LAYOUTS["genimage"].published
    assert sum(number for name, number in published.items() if name != "authentic") == 1_350_000


def test_genimage_below_one_generator(root: Path) -> None:
    done = Imported("genimage", genimage(root, 1) / "BigGAN")
    assert [row.generator for row in done.rows] == [None, "biggan"]


def test_sample_is_fixed_by_its_seed_and_topped_up(root: Path) -> None:
    genimage(root, 6)
    drawn_names = [
        set(Imported("genimage", root, sample=2, seed=seed).by_name) for seed in (0, 0, 1)
    ]
    assert drawn_names[0] == drawn_names[1] != drawn_names[2]
    assert len(drawn_names[0]) == 3 * (2 + 2)
    for name in drawn_names[0]:  # break what was drawn: others take its place
        next(root.rglob(f"{name}.*")).write_bytes(b"no picture")
    again = Imported("genimage", root, sample=2, seed=0)
    assert len(again.rows) == 3 * (2 + 2)
    assert again.problems() == {Problem.UNREADABLE: 12}


def test_synthwildx(root: Path) -> None:
    rows = [("url", "filename", "typ")]
    for seed, kind in enumerate(("real", "dalle3", "midjourney_v5", "firefly")):
        plant(root, {f"{kind}/{seed}.jpg": picture(seed)})
        name = f"{kind}/{seed}.jpg" if seed % 2 else f"{seed}.jpg"
        rows.append((f"https://example.org/{seed}", name, kind))
    rows.append(("https://example.org/gone", "gone.jpg", "firefly"))
    plant(root, {"list.csv": rows_of_csv(*rows)})
    done = Imported("synthwildx", root)
    assert [row.generator for row in done.rows] == [None, "dalle3", "midjourney_v5", "firefly"]
    assert done.kinds == {Kind.AUTHENTIC: 1, Kind.SYNTHETIC: 3}
    assert done.problems() == {Problem.MISSING: 1}


def image_cell(data: bytes | None) -> dict[str, object] | None:
    return None if data is None else {"bytes": data, "path": None}


def test_openai_preference_uses_each_4o_picture_once(root: Path) -> None:
    root.mkdir()
    ours, rival = picture(1), picture(2)
    pairs = [
        {"prompt": "a", "image1": ours, "image2": rival, "model1": "openai-4o", "model2": "flux"},
        {"prompt": "a", "image1": rival, "image2": ours, "model1": "imagen", "model2": "openai-4o"},
        {"prompt": "b", "image1": rival, "image2": picture(3), "model1": "x", "model2": "GPT-4o"},
    ]
    for pair in pairs:
        pair["image1"], pair["image2"] = image_cell(pair["image1"]), image_cell(pair["image2"])
    pq.write_table(pa.Table.from_pylist(pairs), root / "train-00000.parquet", row_group_size=2)
    done = Imported("openai-4o-preference", root)
    assert [(row.kind, row.generator) for row in done.rows] == [(Kind.SYNTHETIC, "gpt-4o")] * 2
    assert (done.folder / done.rows[0].path).read_bytes() == ours
    assert done.problems() == {Problem.DUPLICATE: 1, Problem.UNUSED: 3}


def test_sharegpt_takes_the_text_to_image_part(root: Path) -> None:
    names = ["text_to_image/1.png", "text_to_image/2.png"]
    plant(
        root,
        {
            names[0]: picture(1, "PNG"),
            "text_and_image_to_image/3.png": picture(3, "PNG"),
            "text_to_image.json": json.dumps(
                [{"input_prompt": "a cat", "output_image": name} for name in names]
            ),
        },
    )
    done = Imported("sharegpt-4o-image", root)
    assert [row.source_id for row in done.rows] == ["sharegpt-4o/text_to_image/1"]
    assert done.problems() == {Problem.MISSING: 1, Problem.UNUSED: 1}


def test_gpt_imgeval(root: Path) -> None:
    plant(root, {"a/1.png": picture(1, "PNG"), "b/1.png": picture(2, "PNG"), "meta.json": "{}"})
    done = Imported("gpt-imgeval", root)
    assert [row.generator for row in done.rows] == ["gpt-4o"] * 2
    assert LAYOUTS["gpt-imgeval"].published == {"gpt-4o": 554}


def test_opensdi(root: Path) -> None:
    root.mkdir()
    rows = [
        {"key": "real/1", "image": picture(1), "mask": None, "label": 0},
        {"key": "entire/1", "image": picture(2), "mask": None, "label": 1},
        {"key": "partial/../../../1", "image": picture(3), "mask": drawn(REGION), "label": 1},
        {"key": "odd", "image": picture(4), "mask": None, "label": 7},
    ]
    for row in rows:
        row["image"], row["mask"] = image_cell(row["image"]), image_cell(row["mask"])
    pq.write_table(pa.Table.from_pylist(rows), root / "sd15-00000-of-00001.parquet")
    done = Imported("opensdi", root)
    assert [row.kind for row in done.rows] == [Kind.AUTHENTIC, Kind.SYNTHETIC, Kind.INPAINT]
    assert [row.generator for row in done.rows] == [None, "sd15", "sd15"]
    assert np.array_equal(done.region(Path(done.rows[2].path).stem), REGION)
    assert done.problems() == {Problem.NAME: 1}


def test_empty_cell_is_reported(root: Path) -> None:
    root.mkdir()
    cells = [image_cell(picture(1)), None]
    rows = [
        {"key": str(n), "image": cell, "mask": None, "label": 0} for n, cell in enumerate(cells)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "flux-00000-of-00001.parquet")
    done = Imported("opensdi", root)
    assert done.kinds == {Kind.AUTHENTIC: 1}
    assert done.problems() == {Problem.UNREADABLE: 1}


def test_parquet_without_the_columns_is_an_error(root: Path) -> None:
    root.mkdir()
    pq.write_table(pa.table({"key": ["a"]}), root / "x.parquet")
    with pytest.raises(LayoutError, match="no column mask"):
        Imported("opensdi", root)
