"""Small pictures with objects, for the tests of forgeries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from tests.conftest import encode, photo
from training.cli import app
from training.data import manifest
from training.data.labels import Kind
from training.data.manifest import Row

SIZES = ((90, 61), (64, 48), (100, 75), (73, 80))  # width, height: no multiples of 8 but one
SPLITS = ("train", "train", "validation", "validation")


def make_pictures(root: Path, count: int = 4) -> Path:
    """Photos in `real/` and the manifest of them."""
    rows = []
    for i in range(count):
        file = root / "real" / f"{i:012d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(photo(*SIZES[i % 4], seed=i), quality=90))
        rows.append(
            manifest.describe(
                file, root, Kind.AUTHENTIC, source_id=f"photo-{i}", split=SPLITS[i % 4]
            )
        )
    manifest.write(rows, root / "manifest.jsonl")
    return root / "manifest.jsonl"


def make_maps(root: Path, count: int = 4) -> Path:
    """Object maps of them: palette PNGs with two objects of one class and one of another."""
    for i in range(count):
        width, height = SIZES[i % 4]
        classes = np.zeros((height, width), np.uint8)
        classes[5:25, 5:25] = 1
        classes[30:45, 30:60] = 1
        classes[5:20, 40:50] = 2
        image = Image.fromarray(classes, "P")
        image.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30])
        (root / "maps").mkdir(parents=True, exist_ok=True)
        image.save(root / "maps" / f"{i:012d}.png")
    return root / "maps"


def make_coco(root: Path, count: int = 4) -> Path:
    """COCO annotations of them: a polygon, run lengths and a crowd in each."""
    images, annotations = [], []
    for i in range(count):
        width, height = SIZES[i % 4]
        images.append({"id": i, "file_name": f"{i:012d}.jpg", "width": width, "height": height})
        polygon = [[10, 10, 40, 10, 40, 40, 10, 40]]
        strip = {"size": [height, width], "counts": [0, 12 * height, (width - 12) * height]}
        for shape, category, crowd in ((polygon, 1, 0), (strip, 2, 0), (strip, 1, 1)):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": i,
                    "category_id": category,
                    "iscrowd": crowd,
                    "segmentation": shape,
                }
            )
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "pole"}]
    file = root / "instances.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return file


def command(*arguments: object) -> Result:
    """Run `gamma-train data …` in this process."""
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def region(file: Path) -> NDArray[np.bool_]:
    with Image.open(file) as image:
        assert image.mode == "L"
        return np.asarray(image) > 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def rows_of(folder: Path) -> list[Row]:
    """The rows of a tool's manifest."""
    return list(manifest.read(folder / "manifest.jsonl"))
