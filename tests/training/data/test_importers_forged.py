"""The importers of forged pictures, each on a small tree in its exact layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encode
from tests.training.data.importing import (
    HEIGHT,
    REGION,
    WIDTH,
    Imported,
    drawn,
    picture,
    plant,
    rows_of_csv,
)
from training.data.importers import LAYOUTS
from training.data.importers.layout import MASKED, Choices, Problem
from training.data.labels import Kind


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
    plant(root, {"Au/holiday.jpg": picture(5)})
    assert Imported("casia-v1+", root).problems() == {Problem.SOURCE: 1, Problem.MISSING: 1}
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
    assert done.problems() == {Problem.MASK_SIZE: 1, Problem.UNUSED: 1}


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


def test_cocoglide_pairs_different_names(root: Path) -> None:
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
    assert done.problems() == {Problem.NAME: 1, Problem.KIND: 1}


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
    assert done.problems() == {Problem.MISSING: 1, Problem.KIND: 2}
