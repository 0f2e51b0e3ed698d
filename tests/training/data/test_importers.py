"""Every importer on a small tree made in the exact layout of its data set."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import encode, photo
from training.data.importers import LAYOUTS
from training.data.importers.generated import genimage_generator
from training.data.importers.layout import MASKED, Choices, LayoutError, Problem
from training.data.importers.reading import Import, Report
from training.data.importers.tampcoco import Forgery, parse
from training.data.labels import LABELS, Kind
from training.data.manifest import Row

WIDTH, HEIGHT = 48, 32
REGION = np.zeros((HEIGHT, WIDTH), bool)
REGION[4:14, 8:28] = True


def picture(seed: int, image_format: str = "JPEG") -> bytes:
    return encode(photo(WIDTH, HEIGHT, seed), image_format)


def drawn(region: np.ndarray, image_format: str = "PNG", *, black: bool = False) -> bytes:
    """A mask as data sets store it: white (or black) is changed."""
    return encode(Image.fromarray(np.where(region ^ black, 255, 0).astype(np.uint8)), image_format)


def plant(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


class Imported:
    """What an import of a tree gave."""

    def __init__(self, name: str, root: Path, **options: Any) -> None:
        manifest = root.parent / "out" / "m.jsonl"
        manifest.parent.mkdir(exist_ok=True)
        reading = Import(LAYOUTS[name], root, manifest, **options)
        self.folder = manifest.parent
        self.rows: list[Row] = list(reading.rows())
        self.report: Report = reading.report
        self.by_name = {Path(row.path).stem: row for row in self.rows}
        for row in self.rows:
            assert (self.folder / row.path).is_file()
            assert LABELS[row.kind].needs_region == (row.mask is not None)

    @property
    def kinds(self) -> dict[Kind, int]:
        return dict(Counter(row.kind for row in self.rows))

    def problems(self) -> dict[Problem, int]:
        return {problem: len(texts) for problem, texts in self.report.problems.items()}

    def region(self, name: str) -> np.ndarray:
        """Where a picture was changed, as training reads it off the mask."""
        mask = self.by_name[name].mask
        assert mask is not None
        with Image.open(self.folder / mask) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            assert image.size == (self.by_name[name].width, self.by_name[name].height)
            return np.asarray(image) > 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "set"


def rows_of_csv(*rows: tuple[object, ...], delimiter: str = ",") -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


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


def test_coco_inpaint_names_the_column_that_is_not_there(root: Path) -> None:
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
    """Three generators in three of the layouts that are about."""
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


def test_a_sample_is_fixed_by_its_seed_and_topped_up(root: Path) -> None:
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


def test_openai_preference_takes_the_4o_side_once(root: Path) -> None:
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
    assert done.problems() == {Problem.DUPLICATE: 1}


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
    assert done.problems() == {Problem.MISSING: 1}


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


def test_an_empty_cell_is_reported(root: Path) -> None:
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


def test_casia(root: Path) -> None:
    splice = "Sp_D_CNN_A_ani0049_art0084_0266"
    move = "Sp_S_NND_A_nat0054_nat0054_0189"
    plant(
        root,
        {
            "Au/Au_art_0084.jpg": picture(1),
            f"Tp/Sp/{splice}.jpg": picture(2),
            f"Tp/CM/{move}.jpg": picture(3),
            "Tp/Sp/Sp_D_NRN_A_cha0011_sec0011_0542.jpg": picture(4),
            f"CASIA 1.0 groundtruth/Sp/{splice}_gt.png": drawn(REGION),
            f"CASIA 1.0 groundtruth/CM/{move}_gt.png": drawn(REGION),
        },
    )
    done = Imported("casia-v1+", root)
    assert done.kinds == {Kind.AUTHENTIC: 1, Kind.SPLICE: 1, Kind.COPY_MOVE: 1}
    assert done.by_name[splice].source_id == done.by_name["Au_art_0084"].source_id
    assert np.array_equal(done.region(splice), REGION)
    assert done.problems() == {Problem.MISSING: 1}
    published = LAYOUTS["casia-v1+"].published
    assert published["copy_move"] + published["splice"] == 920


@pytest.mark.parametrize("end", ["edgemask", "edgemask_3"])
def test_columbia_green_is_spliced(root: Path, end: str) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[~REGION] = (200, 0, 0)  # red: the other camera
    colours[REGION] = (0, 200, 0)
    plant(
        root,
        {
            "4cam_auth/canong3_02_sub_01.tif": picture(1, "TIFF"),
            "4cam_splc/canong3_canonxt_sub_01.tif": picture(2, "TIFF"),
            f"4cam_splc/edgemask/canong3_canonxt_sub_01_{end}.jpg": encode(
                Image.fromarray(colours), quality=95, subsampling=0
            ),
        },
    )
    done = Imported("columbia", root)
    assert done.kinds == {Kind.AUTHENTIC: 1, Kind.SPLICE: 1}
    assert np.mean(done.region("canong3_canonxt_sub_01") == REGION) > 0.98  # a JPEG
    assert LAYOUTS["columbia"].mask.threshold == 120


def test_coverage_resizes_masks(root: Path) -> None:
    small = REGION[::2, ::2]
    plant(
        root,
        {
            "image/1.tif": picture(1, "TIFF"),
            "image/1t.tif": picture(2, "TIFF"),
            "image/2t.tif": picture(3, "TIFF"),
            "mask/1forged.tif": drawn(REGION, "TIFF"),
            "mask/1copy.tif": drawn(~REGION, "TIFF"),
            "mask/2forged.tif": drawn(small, "TIFF"),
        },
    )
    done = Imported("coverage", root)
    assert done.kinds == {Kind.AUTHENTIC: 1, Kind.COPY_MOVE: 2}
    assert done.by_name["1"].source_id == done.by_name["1t"].source_id
    assert np.array_equal(done.region("1t"), REGION)
    assert np.array_equal(done.region("2t"), small.repeat(2, 0).repeat(2, 1))
    assert done.problems() == {Problem.MASK_SIZE: 1}


def test_nist16_black_is_tampered(root: Path) -> None:
    header = (
        *("TaskID", "ProbeFileName", "ProbeMaskFileName", "BaseFileName", "IsTarget"),
        "IsManipulationTypeSplice",
    )
    mask = "reference/manipulation/mask/NC2016_1_mask.png"
    rows = [
        ("manipulation", "probe/NC2016_1.jpg", mask, "world/NC2016_9.jpg", "Y", "Y"),
        ("manipulation", "probe/NC2016_2.jpg", mask, "world/NC2016_9.jpg", "Y", "N"),
        ("manipulation", "probe/NC2016_3.jpg", "", "", "N", "N"),
    ]
    plant(
        root,
        {
            **{f"probe/NC2016_{number}.jpg": picture(number) for number in (1, 2, 3)},
            mask: drawn(REGION, black=True),
            "reference/manipulation/NC2016-manipulation-ref.csv": rows_of_csv(
                header, *rows, delimiter="|"
            ),
        },
    )
    done = Imported("nist16", root)
    assert [row.kind for row in done.rows] == [Kind.SPLICE, Kind.COPY_MOVE, Kind.AUTHENTIC]
    assert np.array_equal(done.region("NC2016_1"), REGION)
    assert done.by_name["NC2016_1"].source_id == "nist16/NC2016_9"
    assert done.report.found[MASKED] == 2
    assert LAYOUTS["nist16"].published == {MASKED: 564}


def test_imd2020(root: Path) -> None:
    plant(
        root,
        {
            "1a1ogs/1a1ogs_orig.jpg": picture(1),
            "1a1ogs/c8tf5mq_0.png": picture(2, "PNG"),
            "1a1ogs/c8tf5mq_0_mask.png": drawn(REGION),
            "z28/00065_fake.jpg": picture(3),
            "z28/00065_fake_mask.png": encode(
                Image.fromarray(drawn_rgb(REGION)), "PNG"
            ),  # some masks are in colour
        },
    )
    done = Imported("imd2020", root)
    assert done.kinds == {Kind.AUTHENTIC: 1, Kind.SPLICE: 2}
    assert done.by_name["c8tf5mq_0"].source_id == "imd2020/1a1ogs"
    assert np.array_equal(done.region("c8tf5mq_0"), REGION)
    assert np.array_equal(done.region("00065_fake"), REGION)


def drawn_rgb(region: np.ndarray) -> np.ndarray:
    return np.repeat(np.where(region, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)


def test_cocoglide_pairs_unlike_names(root: Path) -> None:
    names = (
        "real/dining table_114871.png",
        "fake/glide_inpainting_val2017_114871_up.png",
        "mask/dining table_114871_mask.png",
    )
    table = rows_of_csv(("real", "fake", "mask", "prompt"), (*names, "a table"))
    contents = (picture(1, "PNG"), picture(2, "PNG"), drawn(REGION))
    plant(root, {**dict(zip(names, contents, strict=True)), "table.csv": "\ufeff" + table})
    done = Imported("cocoglide", root)
    assert [row.kind for row in done.rows] == [Kind.AUTHENTIC, Kind.BLENDED]
    assert {row.source_id for row in done.rows} == {"coco/000000114871"}
    assert np.array_equal(done.region("glide_inpainting_val2017_114871_up"), REGION)


def test_dso1_black_is_tampered(root: Path) -> None:
    plant(
        root,
        {
            "DSO-1/normal-01.png": picture(1, "PNG"),
            "DSO-1/splicing-01.png": picture(2, "PNG"),
            "DSO-1-Fake-Images-Masks/splicing-01.png": drawn(REGION, black=True),
        },
    )
    done = Imported("dso-1", root)
    assert [row.kind for row in done.rows] == [Kind.AUTHENTIC, Kind.SPLICE]
    assert np.array_equal(done.region("splicing-01"), REGION)


def test_imdl_json(root: Path) -> None:
    plant(
        root,
        {
            "a/1.jpg": picture(1),
            "a/2.jpg": picture(2),
            "m/1.jpg": drawn(REGION, "BMP"),
            "data.json": json.dumps([["a/1.jpg", "m/1.jpg"], [str(root / "a/2.jpg"), "Negative"]]),
        },
    )
    done = Imported("imdl-json", root, choices=Choices(kind=Kind.BLENDED))
    assert [row.kind for row in done.rows] == [Kind.BLENDED, Kind.AUTHENTIC]
    assert np.array_equal(done.region("1"), REGION)


def test_mvss_list(root: Path) -> None:
    plant(
        root,
        {
            "a/1.jpg": picture(1),
            "a/2.jpg": picture(2),
            "m/1.png": drawn(REGION),
            "test.txt": "a/1.jpg m/1.png 1\na/2.jpg None 0\na/3.jpg\n",
        },
    )
    done = Imported("mvss-list", root)
    assert [row.kind for row in done.rows] == [Kind.SPLICE, Kind.AUTHENTIC]
    assert np.array_equal(done.region("1"), REGION)
    assert done.problems() == {Problem.NAME: 1}


def test_folder_pairs(root: Path) -> None:
    plant(
        root,
        {
            "Tp/1.jpg": picture(1),
            "Tp/2.jpg": picture(2),
            "Tp/3.jpg": picture(3),
            "Gt/1.png": drawn(REGION),
            "Gt/2_gt.png": drawn(REGION),
            "Au/4.jpg": picture(4),
        },
    )
    done = Imported("pairs", root)
    assert done.kinds == {Kind.SPLICE: 2, Kind.AUTHENTIC: 1}
    assert np.array_equal(done.region("2"), REGION)
    assert done.problems() == {Problem.MISSING: 1}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_an_empty_folder_is_an_error_of_every_layout(root: Path, name: str) -> None:
    root.mkdir()
    with pytest.raises(LayoutError, match=str(root)):
        Imported(name, root)
