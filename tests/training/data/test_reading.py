"""The checks that all importers share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encode, photo
from tests.training.data.importing import (
    HEIGHT,
    REGION,
    WIDTH,
    Imported,
    drawn,
    picture,
    plant,
)
from training.data.importers.layout import Choices, MaskRule, Problem


def pairs(root: Path, **masks: bytes) -> Imported:
    """Import `Tp/ Gt/` pairs with these masks."""
    for seed, (name, mask) in enumerate(masks.items()):
        plant(root, {f"Tp/{name}.jpg": picture(seed), f"Gt/{name}.png": mask})
    return Imported("pairs", root)


def test_truncated_pictures_with_valid_headers_are_found(root: Path) -> None:
    data = encode(photo(256, 256))
    plant(root, {"real/whole.jpg": data, "real/half.jpg": data[: len(data) // 2]})
    done = Imported("folders", root)
    assert list(done.by_name) == ["whole"]
    (text,) = done.report.problems[Problem.UNREADABLE]
    assert "half.jpg" in text
    assert "ends too early" in text


def test_duplicates_are_used_once_and_label_conflicts_reported(root: Path) -> None:
    plant(root, {"real/a.jpg": picture(1), "real/b.jpg": picture(1), "fake/c.jpg": picture(1)})
    done = Imported("folders", root)
    assert len(done.rows) == 1
    texts = done.report.problems[Problem.DUPLICATE]
    assert len(texts) == 2
    assert any("but synthetic there, authentic here" in text for text in texts)


def test_masks_of_another_size_are_left_out(root: Path) -> None:
    done = pairs(root, good=drawn(REGION), small=drawn(REGION[::2, ::2]))
    assert list(done.by_name) == ["good"]
    (text,) = done.report.problems[Problem.MASK_SIZE]
    assert f"{WIDTH} x {HEIGHT}, its mask {WIDTH // 2} x {HEIGHT // 2}" in text


def test_inverted_masks_are_reported(root: Path) -> None:
    done = pairs(
        root,
        good=drawn(REGION),
        inverse=drawn(~REGION),
        nothing=drawn(np.zeros_like(REGION)),
        everything=drawn(np.ones_like(REGION)),
    )
    assert set(done.by_name) == {"good", "inverse"}
    assert len(done.report.problems[Problem.MASK_POLARITY]) == 3


def test_masks_of_authentic_pictures_are_not_searched(root: Path) -> None:
    plant(root, {"a.jpg": picture(1), "t.csv": "path,mask,kind\na.jpg,gone.png,real\n"})
    done = Imported("coco-inpaint", root, choices=Choices(table=root / "t.csv"))
    assert (len(done.rows), done.problems()) == (1, {})


def test_unreadable_masks_are_reported(root: Path) -> None:
    done = pairs(root, good=drawn(REGION), broken=drawn(REGION)[:60])
    assert list(done.by_name) == ["good"]
    assert "mask of" in done.report.problems[Problem.UNREADABLE][0]


def test_valid_masks_are_not_copied(root: Path) -> None:
    done = pairs(root, plain=drawn(REGION), grey=encode(Image.fromarray(REGION), "PNG"))
    assert done.by_name["plain"].mask == "../set/Gt/plain.png"
    assert done.by_name["grey"].mask == "m-files/masks/Tp/grey.jpg.png"  # 1 bit a pixel
    assert np.array_equal(done.region("grey"), REGION)
    assert not list(done.folder.rglob("*.partial"))


def test_rotated_pictures_have_their_upright_size(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    plant(
        root,
        {
            "Tp/x.jpg": encode(photo(WIDTH, HEIGHT), exif=exif),
            "Gt/x.png": drawn(REGION.T),
        },
    )
    done = Imported("pairs", root)
    assert (done.rows[0].width, done.rows[0].height) == (HEIGHT, WIDTH)
    assert np.array_equal(done.region("x"), REGION.T)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I"])
def test_masks_of_any_mode(mode: str) -> None:
    grey = Image.fromarray(np.where(REGION, 255, 0).astype(np.uint8))
    if mode == "I;16":
        mask = Image.fromarray(np.where(REGION, 65535, 0).astype(np.uint16))
    else:
        mask = grey.convert(mode)
    assert mask.mode == mode
    assert np.array_equal(MaskRule().region(mask), REGION)
    assert np.array_equal(MaskRule(threshold=127, black=True).region(mask), ~REGION)
