"""Learning the co-occurrence table before the network."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from model import checkpoint
from model.cooccurrence import ROWS, CooccurrenceInput, histogram
from training.config import ConfigError, Settings
from training.data.dataset import load_pictures
from training.fitting import cooccurrence, network
from training.fitting.cooccurrence import Histograms, learn_table

Configure = Callable[..., Settings]


def textures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """White noise (0) and correlated noise of the same strength (1)."""
    noise = torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
    noise[1::2] = (smooth / smooth.std())[1::2]
    labels = torch.arange(count) % 2
    return (noise * 4 + 128).round().clamp(0, 255), labels.float()


def test_learned_table_separates_textures_at_every_position() -> None:
    levels, labels = textures(200, seed=1)
    table = learn_table(Histograms(histogram(levels), labels), channels=3, seed=0)
    assert table.shape == (ROWS, 3)
    stem = CooccurrenceInput(3)
    stem.table.data.copy_(table)
    maps = stem(levels)
    assert maps.mean((0, 2, 3)).abs().max() < 0.1
    torch.testing.assert_close(maps.mean((2, 3)).std(0), torch.ones(3), atol=0.05, rtol=0)
    unseen, truth = textures(40, seed=2)
    first = stem(unseen)[:, 0].unfold(1, 16, 16).unfold(2, 16, 16).mean((3, 4))  # (40, 3, 3)
    marked = (first > 0) if first[truth == 1].mean() > 0 else (first < 0)
    assert (marked.float() == truth[:, None, None]).float().mean() > 0.95


def test_same_seed_gives_the_same_table() -> None:
    levels, labels = textures(40, seed=1)
    found = Histograms(histogram(levels), labels)
    first, again, other = (learn_table(found, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_table_is_learned_from_the_crops_of_a_run(configure: Configure) -> None:
    settings = configure("model.input=cooccurrence", "start.cooccurrence_crops=24")
    pictures = load_pictures(settings.data.manifests, "train", settings.data.kinds)
    console = Console(file=io.StringIO())
    tables = [cooccurrence.learn(pictures, settings, console) for _ in range(2)]
    assert tables[0].shape == (ROWS, settings.model.input_channels)
    assert torch.equal(*tables)
    assert np.isfinite(tables[0].numpy()).all()


def test_table_of_another_run_can_be_copied(configure: Configure, tmp_path: Path) -> None:
    options = ("model.input=cooccurrence", "model.input_channels=4")
    other = network.build(configure(*options))
    assert other.input is not None
    torch.nn.init.normal_(other.input.table)
    checkpoint.save(other, tmp_path)
    source = f"start.cooccurrences={tmp_path}"
    settings = configure(*options, source)
    pictures = load_pictures(settings.data.manifests, "train", settings.data.kinds)
    model = network.build(settings)
    assert model.input is not None
    cooccurrence.start(model, pictures, settings, Console(file=io.StringIO()))
    assert torch.equal(model.input.table, other.input.table)

    settings = configure(options[0], "model.input_channels=5", source)
    with pytest.raises(ConfigError, match="has 4 channels"):
        cooccurrence.start(network.build(settings), pictures, settings, Console())
