"""Epochs: rows and batches for any number of processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.conftest import make_tree, small_settings
from training.config import ConfigError, Settings
from training.data.dataset import NO_ORIGINAL, Pictures, Request, load_pictures
from training.data.labels import Kind
from training.fitting.sampling import EpochBatches


@pytest.fixture
def pictures(tree: Path) -> Pictures:
    return load_pictures([str(tree)], "train", tuple(Kind))


def rows(batches: EpochBatches) -> list[int]:
    return [request.row for batch in batches for request in batch]


def test_each_epoch_samples_an_exact_new_subset(
    pictures: Pictures, configure: Callable[..., Settings]
) -> None:
    batches = EpochBatches(pictures, configure("data.epoch_fraction=0.7"))
    first = rows(batches)
    assert (len(pictures), len(first), batches.samples, len(batches)) == (12, 8, 8, 2)
    assert len(set(first)) == 8
    assert batches.describe() == "epoch 1: 8 of 12 pictures, 2 steps of 4"
    assert rows(batches) == first
    batches.epoch = 1
    assert set(rows(batches)) != set(first)


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("pairs", ["true", "false"])
def test_processes_split_the_batches_of_one_process(
    pictures: Pictures,
    configure: Callable[..., Settings],
    processes: int,
    accumulation: int,
    pairs: str,
) -> None:
    options = (f"data.pairs={pairs}", "train.batch_size=8")
    alone = list(EpochBatches(pictures, configure(*options)))
    settings = configure(*options, f"train.accumulation={accumulation}")
    shares = [
        list(EpochBatches(pictures, settings, processes=processes, rank=rank))
        for rank in range(processes)
    ]
    for step, batch in enumerate(alone):
        parts: list[Request] = []
        for part in range(accumulation):
            for share in shares:
                parts += share[step * accumulation + part]
        assert parts == batch


def test_mix_sets_shares(pictures: Pictures, configure: Callable[..., Settings]) -> None:
    mix = "data.mix={authentic = 2, blended = 1, splice = 1}"
    batches = EpochBatches(pictures, configure(mix))
    kinds = Counter(pictures.kind(row) for row in rows(batches))
    assert kinds == {Kind.AUTHENTIC: 6, Kind.BLENDED: 3, Kind.SPLICE: 3}


def test_pairs_are_adjacent(pictures: Pictures, configure: Callable[..., Settings]) -> None:
    batches = EpochBatches(pictures, configure("data.pairs=true"))
    for batch in batches:
        for original, forged in zip(batch[::2], batch[1::2], strict=True):
            assert pictures.originals[forged.row] == original.row
            assert original.draw == forged.draw
    assert sum(len(batch) for batch in batches) == 12


def test_rows_without_original_are_paired_with_each_other(tmp_path: Path) -> None:
    file = make_tree(tmp_path, 4)
    pictures = load_pictures([str(file)], "train", tuple(Kind))
    alone = pictures.kinds == tuple(Kind).index(Kind.SYNTHETIC)
    pictures.originals[alone] = NO_ORIGINAL
    batches = EpochBatches(pictures, small_settings(file, "data.pairs=true"))
    requests = [request for batch in batches for request in batch]
    assert len(requests) == 24
    for first, second in zip(requests[::2], requests[1::2], strict=True):
        paired = pictures.originals[second.row] == first.row
        both_alone = {pictures.originals[first.row], pictures.originals[second.row]} == {
            NO_ORIGINAL
        }
        assert paired == (first.draw == second.draw)
        assert paired or both_alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.accumulation=3"], "does not divide into 1 processes x 3"),
        (["data.pairs=true", "train.batch_size=3"], "of pairs"),
        (["train.batch_size=16"], "do not fill one batch of 16"),
        (["data.pairs=true", "data.mix.authentic=1"], "no forgery has an original"),
    ],
)
def test_impossible_settings_are_errors(
    pictures: Pictures, configure: Callable[..., Settings], options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        EpochBatches(pictures, configure(*options))


def test_kind_of_the_mix_must_exist(tree: Path, configure: Callable[..., Settings]) -> None:
    pictures = load_pictures([str(tree)], "train", [Kind.AUTHENTIC])
    with pytest.raises(ConfigError, match=r"data\.mix\.splice"):
        EpochBatches(pictures, configure("data.mix={splice = 1}", "train.batch_size=2"))
