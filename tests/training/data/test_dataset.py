"""Crops and their labels: equal to those of the service, in any process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from model.config import GammaConfig
from model.detector import Detector
from model.engine import to_levels
from model.network import IGNORE, GammaModel
from pictures.findings import View
from tests.conftest import encode, photo
from tests.training.conftest import make_tree, small_settings
from training.config import ConfigError, LabelSettings, Settings
from training.data import manifest, splits
from training.data.dataset import (
    EvaluationCrops,
    Pictures,
    Request,
    TrainingCrops,
    UnreadablePictureError,
    collate,
    labels_of,
    load_pictures,
)
from training.data.labels import Kind
from training.fitting.sampling import EpochBatches


@pytest.fixture
def pictures(tree: Path) -> Pictures:
    return load_pictures([str(tree)], "train", tuple(Kind))


def row_of(pictures: Pictures, kind: Kind) -> int:
    return int(pictures.of_kind(kind)[0])


@pytest.mark.parametrize("size", [(96, 96), (200, 81), (50, 130), (64, 64), (40, 33)])
def test_evaluation_crops_equal_those_of_the_service(tmp_path: Path, size: tuple[int, int]) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encode(photo(*size), quality=90))
    row = manifest.describe(file, tmp_path, Kind.AUTHENTIC, source_id="a")
    manifest.write([row.model_copy(update={"split": "validation"})], tmp_path / "m.jsonl")
    settings = small_settings(tmp_path / "m.jsonl")
    model = GammaModel(GammaConfig(backbone="mit_b0", crop_size=64))
    detector = Detector(model, dtype="float32", max_pixels=10**6, max_tiles=4)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    detector.detect(file.read_bytes(), View.CENTER)
    crops = EvaluationCrops(
        load_pictures([row_file(tmp_path)], "validation", tuple(Kind)), settings
    )
    ours = to_levels(collate([crops[0]])["tiles"])
    assert torch.equal(ours, seen[0])


def row_file(folder: Path) -> str:
    return str(folder / "m.jsonl")


def test_table_1_in_pixels(pictures: Pictures, configure: Callable[..., Settings]) -> None:
    crops = EvaluationCrops(pictures, configure())
    region = np.asarray(Image.open(pictures.mask(row_of(pictures, Kind.SPLICE))))[16:80, 16:80] > 0
    assert 0 < region.mean() < 1
    nothing, everything = np.zeros((64, 64)), np.ones((64, 64))
    expected = {
        Kind.AUTHENTIC: (0, nothing, nothing),
        Kind.INPAINT: (1, region, everything),
        Kind.BLENDED: (1, region, region),
        Kind.COPY_MOVE: (0, region, nothing),
        Kind.SPLICE: (0, region, nothing),
        Kind.SYNTHETIC: (1, np.full((64, 64), IGNORE), everything),
    }
    for kind, (label, manipulation, ai) in expected.items():
        sample = crops[row_of(pictures, kind)]
        assert sample.label == label, kind
        np.testing.assert_array_equal(sample.manipulation, manipulation, kind)
        np.testing.assert_array_equal(sample.ai, ai, kind)


def test_table_5_changes_only_the_class() -> None:
    policy = LabelSettings(copy_move=1)
    assert labels_of(Kind.COPY_MOVE, policy).ai_generated
    assert not labels_of(Kind.SPLICE, policy).ai_generated
    assert labels_of(Kind.COPY_MOVE, policy).ai == labels_of(Kind.COPY_MOVE, LabelSettings()).ai


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_and_pixels_do_not_depend_on_the_workers(
    pictures: Pictures, configure: Callable[..., Settings], workers: int
) -> None:
    settings = configure("augment.probability=0.5", "augment.jitter=0.5")

    def load(number: int) -> list[dict[str, object]]:
        return list(
            DataLoader(
                TrainingCrops(pictures, settings),
                batch_sampler=EpochBatches(pictures, settings),
                num_workers=number,
                collate_fn=collate,
            )
        )

    for here, there in zip(load(0), load(workers), strict=True):
        assert here["paths"] == there["paths"]
        for name, values in here.items():
            if isinstance(values, Tensor):
                assert torch.equal(values, there[name]), name  # type: ignore[arg-type]


def test_epochs_and_samples_differ(pictures: Pictures, configure: Callable[..., Settings]) -> None:
    crops = TrainingCrops(pictures, configure())
    tiles = [crops[Request(*request)].tile for request in ((0, 0, 0), (1, 0, 0), (0, 1, 0))]
    assert not np.array_equal(tiles[0], tiles[1])
    assert not np.array_equal(tiles[0], tiles[2])
    np.testing.assert_array_equal(tiles[0], crops[Request(0, 0, 0)].tile)


def test_pair_has_the_same_crop_and_augmentation(
    pictures: Pictures, configure: Callable[..., Settings]
) -> None:
    crops = TrainingCrops(pictures, configure())
    blended = row_of(pictures, Kind.BLENDED)
    original = int(pictures.originals[blended])
    flips = 0
    beyond = []
    for draw in range(12):
        forged, real = crops[Request(0, draw, blended)], crops[Request(0, draw, original)]
        changed = np.abs(forged.tile.astype(int) - real.tile).max(2) > 0
        outside = forged.manipulation == 0
        core = outside & (np.abs(np.diff(forged.manipulation, axis=0, prepend=0)) == 0)
        assert changed[~outside].mean() > 0.9
        beyond.append(changed[core].mean())
        flips += changed.any()
    assert flips == 12
    assert np.mean(beyond) < 0.75  # JPEG and blur carry a change a little further


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (200, 40), (30, 50)])
@pytest.mark.parametrize("small", ["resize", "replicate"])
def test_masks_move_with_the_pixels(tmp_path: Path, size: tuple[int, int], small: str) -> None:
    width, height = size
    region = np.zeros((height, width), np.uint8)
    region[: height // 2] = 255
    Image.fromarray(region).save(tmp_path / "mask.png")
    Image.fromarray(np.repeat(region[:, :, None], 3, 2)).save(tmp_path / "a.png")
    row = manifest.describe(tmp_path / "a.png", tmp_path, Kind.AUTHENTIC, source_id="a")
    update = {"kind": Kind.BLENDED, "mask": "mask.png", "split": "train"}
    manifest.write([row.model_copy(update=update)], tmp_path / "m.jsonl")
    settings = small_settings(
        tmp_path / "m.jsonl", "augment.probability=0", f"data.small_pictures={small}"
    )
    crops = TrainingCrops(load_pictures([row_file(tmp_path)], "train", tuple(Kind)), settings)
    for draw in range(20):
        sample = crops[Request(0, draw, 0)]
        assert sample.tile.shape == (64, 64, 3)
        agree = (sample.tile[:, :, 0] > 127) == (sample.manipulation > 0)
        assert agree.mean() > 0.97


def test_padding_is_black_and_authentic(tmp_path: Path) -> None:
    file = make_tree(tmp_path, 1, side=64)
    settings = small_settings(file, "augment.probability=0", "data.padding=3")
    pictures = load_pictures([str(file)], "train", [Kind.BLENDED])
    crops = TrainingCrops(pictures, settings)
    rows = [(crops[Request(0, draw, 0)].tile == 0).all((1, 2)).sum() for draw in range(40)]
    assert set(rows) == {0, 1, 2, 3}


def break_pictures(pictures: Pictures, kind: Kind, count: int) -> list[Path]:
    broken = [pictures.path(int(row)) for row in pictures.of_kind(kind)[:count]]
    for file in broken:
        file.write_bytes(file.read_bytes()[:200])
    return broken


def test_unreadable_picture_is_reported_and_replaced(
    pictures: Pictures, configure: Callable[..., Settings]
) -> None:
    (broken,) = break_pictures(pictures, Kind.SPLICE, 1)
    crops = TrainingCrops(pictures, configure())
    request = Request(0, 5, row_of(pictures, Kind.SPLICE))
    sample = crops[request]
    assert sample.path == str(pictures.path(int(pictures.of_kind(Kind.SPLICE)[1])))
    assert str(broken) in sample.problems[0]
    np.testing.assert_array_equal(crops[request].tile, sample.tile)
    assert collate([sample])["problems"] == sample.problems


def test_missing_or_wrong_mask_counts_as_unreadable(
    pictures: Pictures, configure: Callable[..., Settings]
) -> None:
    row = row_of(pictures, Kind.BLENDED)
    crops = EvaluationCrops(pictures, configure())
    Image.new("L", (10, 10)).save(pictures.mask(row))
    assert "mask" in crops[row].problems[0]
    assert "10 x 10" in crops[row].problems[0]
    pictures.mask(row).unlink()
    assert str(pictures.mask(row)) in crops[row].problems[0]


def test_nothing_readable_is_an_error(
    pictures: Pictures, configure: Callable[..., Settings]
) -> None:
    break_pictures(pictures, Kind.SPLICE, 2)
    with pytest.raises(UnreadablePictureError, match="too many unreadable"):
        TrainingCrops(pictures, configure())[Request(0, 0, row_of(pictures, Kind.SPLICE))]


def test_manifest_must_have_splits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(photo(8, 8), "PNG"))
    row = manifest.describe(tmp_path / "a.png", tmp_path, Kind.AUTHENTIC, source_id="a")
    manifest.write([row], tmp_path / "m.jsonl")
    with pytest.raises(ConfigError, match=r"m\.jsonl: no row has a split"):
        load_pictures([row_file(tmp_path)], "train", tuple(Kind))


def test_held_out_rows_are_not_taken(tree: Path) -> None:
    rows = [
        row.model_copy(update={"generator": "held" if row.kind is Kind.BLENDED else None})
        for row in manifest.read(tree)
    ]
    plan = splits.Plan(validation=0.5, generators=["held"], held_out_to="validation")
    rows = splits.assign(rows, plan)
    assert None in {row.split for row in rows}
    manifest.write(rows, tree)
    taken = load_pictures([str(tree)], "train", tuple(Kind))
    assert len(taken) == sum(row.split == "train" for row in rows)
    assert not len(taken.of_kind(Kind.BLENDED))


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl"):
        load_pictures([str(tmp_path / "none.jsonl")], "train", tuple(Kind))
