"""Importers, each on a small tree in the layout of its data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import encode
from tests.training.data.importing import (
    REGION,
    Imported,
    drawn,
    picture,
    plant,
    rows_of_csv,
)
from training.data.importers import LAYOUTS
from training.data.importers.layout import Choices, LayoutError, Problem
from training.data.importers.tampcoco import Forgery, parse
from training.data.labels import Kind


def test_folders(root: Path) -> None:
    plant(
        root,
        {
            "real/one.jpg": picture(1),
            "fake/sd/two.png": picture(2, "PNG"),
            "glide/1_fake/three.jpg": picture(3),
            "elsewhere/four.jpg": picture(4),
        },
    )
    done = Imported("folders", root)
    assert done.kinds == {Kind.AUTHENTIC: 1, Kind.SYNTHETIC: 2}
    generators = {name: row.generator for name, row in done.by_name.items()}
    assert generators == {"one": None, "two": "sd", "three": "glide"}


def test_imagenet(root: Path) -> None:
    plant(root, {"val/n01440764/ILSVRC2012_val_00000293.JPEG": picture(1)})
    (row,) = Imported("imagenet", root).rows
    assert (row.kind, row.source_id) == (Kind.AUTHENTIC, "imagenet/ILSVRC2012_val_00000293")


def test_coco_takes_images_with_an_instance(root: Path) -> None:
    names = {9: "000000000009.jpg", 25: "000000000025.jpg", 30: "000000000030.jpg"}
    instances = {
        "images": [{"id": number, "file_name": name} for number, name in names.items()],
        "annotations": [{"image_id": 9}, {"image_id": 9}, {"image_id": 30}],
    }
    files = {f"train2017/{name}": picture(number) for number, name in names.items()}
    other = {"annotations/instances_val2017.json": "{}"}  # comes in the same archive
    plant(root, files | other | {"annotations/instances_train2017.json": json.dumps(instances)})
    done = Imported("coco", root)
    assert [row.source_id for row in done.rows] == ["coco/000000000009", "coco/000000000030"]
    assert done.kinds == {Kind.AUTHENTIC: 2}
    assert LAYOUTS["coco"].published == {"authentic": 117_266}


def test_coco_with_other_annotations_is_an_error(root: Path) -> None:
    plant(root, {"train2017/x.jpg": picture(1), "annotations/instances_train2017.json": "{}"})
    with pytest.raises(LayoutError, match="not annotations of COCO"):
        Imported("coco", root)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_coco_inpaint_by_any_table(root: Path, suffix: str) -> None:
    plant(
        root,
        {
            "a/000000000009.jpg": picture(1),
            "b/000000000009_sdxl.png": picture(2, "PNG"),
            "m/000000000009.png": drawn(REGION),
        },
    )
    header = ("img", "mask_path", "model", "mask_type", "guidance", "label")
    rows = [
        ("a/000000000009.jpg", "", "", "", "", "real"),
        ("b/000000000009_sdxl.png", "m/000000000009.png", "sdxl", "box", "text", "inpainted"),
        ("b/000000000009_sdxl.png", "m/000000000009.png", "sdxl", "box", "text", "nonsense"),
    ]
    table = root / f"list{suffix}"
    records = [dict(zip(header, row, strict=True)) for row in rows]
    match suffix:
        case ".csv":
            table.write_text(rows_of_csv(header, *rows))
        case ".tsv":
            table.write_text(rows_of_csv(header, *rows, delimiter="\t"))
        case ".json":
            table.write_text(json.dumps(records))
        case ".jsonl":
            table.write_text("".join(json.dumps(record) + "\n" for record in records))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(records), table)
    columns = {"path": "img", "mask": "mask_path", "generator": "model", "kind": "label"}
    done = Imported("coco-inpaint", root, choices=Choices(table=table, columns=columns))
    assert done.kinds == {Kind.AUTHENTIC: 1, Kind.INPAINT: 1}
    row = done.by_name["000000000009_sdxl"]
    assert (row.generator, row.mask_type, row.guidance) == ("sdxl", "box", "text")
    assert {row.source_id for row in done.rows} == {"coco/000000000009"}
    assert np.array_equal(done.region("000000000009_sdxl"), REGION)
    assert done.problems() == {Problem.NAME: 1}


def test_coco_inpaint_reads_our_own_manifests(root: Path) -> None:
    plant(root, {"real/a.jpg": picture(1), "fake/sd/b.jpg": picture(2)})
    first = Imported("folders", root)
    table = root / "ours.jsonl"
    lines = [
        row.model_copy(update={"path": str((first.folder / row.path).resolve())}).model_dump_json()
        for row in first.rows
    ]
    table.write_text("\n".join(lines))
    again = Imported("coco-inpaint", root, choices=Choices(table=table))
    assert again.rows == first.rows


def test_coco_inpaint_names_a_missing_column(root: Path) -> None:
    plant(root, {"t.csv": "img\nx.jpg\n"})
    with pytest.raises(LayoutError, match="no column path; it has img"):
        Imported("coco-inpaint", root, choices=Choices(table=root / "t.csv"))


def test_b_free(root: Path) -> None:
    folders = ("selfconditioned", "inpainted_samecat", "inpainted_diffcat")
    fakes = [f"SD2.1_{name}{end}" for name in folders for end in ("", "_origBG")]
    box = np.zeros_like(REGION)
    box[2:20, 4:30] = True
    for seed, name in enumerate(("000000000009", "000000000025")):
        plant(root, {f"COCO_real_512/{name}.png": picture(seed, "PNG")})
        for place, folder in enumerate(fakes, start=1):
            plant(root, {f"{folder}/{name}.png": picture(10 * place + seed, "PNG")})
        plant(root, {f"mask/{name}.png": drawn(REGION), f"bbox/{name}.png": drawn(box)})
    plant(
        root,
        {
            "train_list.csv": "id,category\n000000000009,cat\n",
            "valid_list.csv": "id,category\n000000000025,dog\n",
        },
    )
    done = Imported("b-free", root)
    assert done.kinds == {
        Kind.AUTHENTIC: 2,
        Kind.SYNTHETIC: 2,
        Kind.INPAINT: 4,
        Kind.BLENDED: 6,
    }
    assert {row.split for row in done.rows if "0025" in row.path} == {"validation"}
    for row in done.rows:
        assert row.source_id == f"coco/{Path(row.path).stem}"
        expected = box if row.mask_type == "box" else REGION
        if row.mask is not None:
            with Image.open(done.folder / row.mask) as mask:
                assert np.array_equal(np.asarray(mask) > 0, expected)
    assert sum(LAYOUTS["b-free"].published.values()) == 51_517 * 7


@pytest.mark.parametrize(
    ("name", "forgery"),
    [
        ("88_000000013140.jpg_000000574443.jpg.jpg", Forgery(88, 13140, 574443, 0, 1)),
        ("100_000000000009.jpg_000000000009.jpg_RS0.90.jpg", Forgery(100, 9, 9, 0, 0.9)),
        ("60_000000000009.jpg_000000000025.jpg_RT-5.8.jpg", Forgery(60, 9, 25, -5.8, 1)),
        (
            "87_000000070642.jpg_000000221521.jpg_RT44.0_RS1.18.jpg",
            Forgery(87, 70642, 221521, 44, 1.18),
        ),
        ("87_000000070642.png_000000221521.png.png", None),
        ("holiday.jpg", None),
    ],
)
def test_names_of_tampcoco(name: str, forgery: Forgery | None) -> None:
    assert parse(name) == forgery


def test_tampcoco(root: Path) -> None:
    splice = "87_000000000009.jpg_000000000025.jpg_RT-5.8_RS1.18"
    move = "90_000000000030.jpg_000000000030.jpg"
    masks = {name: name.replace(".jpg", ".png") + ".png" for name in (splice, move)}
    faint = encode(Image.fromarray(REGION.astype(np.uint8)), "PNG")  # 1 is tampered, not only 255
    plant(
        root,
        {
            f"sp_images/{splice}.jpg": picture(1),
            f"sp_masks/{masks[splice]}": faint,
            f"cm_images/{move}.jpg": picture(2),
            f"cm_masks/{masks[move]}": drawn(REGION),
            "sp_COCO_train_list.txt": f"sp_images/{splice}.jpg,sp_masks/{masks[splice]}\n" * 2
            + "sp_images/70_000000000001.jpg_000000000002.jpg.jpg,sp_masks/x.png\n"
            + "sp_images/holiday.jpg,sp_masks/holiday.png\n",
            "cm_COCO_valid_list.txt": f"cm_images/{move}.jpg,cm_masks/{masks[move]}\n",
        },
    )
    done = Imported("tampcoco", root)
    assert done.kinds == {Kind.COPY_MOVE: 1, Kind.SPLICE: 1}
    assert np.array_equal(done.region(splice), REGION)
    assert np.array_equal(done.region(move), REGION)
    assert done.by_name[splice].source_id == "coco/000000000009"
    assert (done.by_name[splice].split, done.by_name[move].split) == ("train", "validation")
    # The picture that is not there lacks its mask as well.
    assert done.problems() == {Problem.DUPLICATE: 1, Problem.MISSING: 2, Problem.NAME: 1}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_empty_folder_is_an_error_of_every_layout(root: Path, name: str) -> None:
    root.mkdir()
    with pytest.raises(LayoutError, match=str(root)):
        Imported(name, root)
