"""Initial weights of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model import checkpoint
from training.config import ConfigError, Settings
from training.fitting import network

Configure = Callable[..., Settings]


def test_seed_determines_the_weights(configure: Configure) -> None:
    first, again, other = (
        network.build(configure(f"train.seed={seed}")).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(values, again[name]) for name, values in first.items())
    assert any(not torch.equal(values, other[name]) for name, values in first.items())


def test_co_occurrences_start_as_local_means(configure: Configure) -> None:
    drawn = network.build(configure("model.input_channels=4"))
    model = network.build(configure("model.input=cooccurrence", "model.input_channels=4"))
    assert drawn.input is None
    assert model.input is not None
    for stage, inputs in zip(model.encoder.stages, (4, 32, 64, 160), strict=True):
        kernel = stage.patch_embeddings.proj.weight  # (D, C, k, k)
        sums = kernel.sum((2, 3))
        expected = torch.eye(inputs).repeat(-(-len(kernel) // inputs), 1)[: len(kernel)]
        assert (sums - expected).abs().max() < 0.1  # a tenth of the rest is as drawn


def test_training_can_start_from_a_checkpoint(configure: Configure, tmp_path: Path) -> None:
    other = network.build(configure("train.seed=7"))
    checkpoint.save(other, tmp_path / "model")
    model = network.build(configure(f"start.checkpoint={tmp_path / 'model'}"))
    weights = other.state_dict()
    assert all(torch.equal(values, weights[name]) for name, values in model.state_dict().items())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.crop_size=500", "crop_size must be a multiple of 32"),
        ("start.checkpoint=/none", "/none"),
        ("start.encoder=/none.safetensors", "missing"),
    ],
)
def test_invalid_initial_weights_are_named(configure: Configure, option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network.build(configure(option))


def test_stochastic_depth_is_scaled(configure: Configure) -> None:
    def rates(option: float) -> list[float]:
        model = network.build(configure(f"start.drop_path={option}"))
        modules = model.encoder.modules()
        return [m.drop_prob for m in modules if hasattr(m, "drop_prob")]

    assert max(rates(0.2)) == pytest.approx(0.2)
    assert max(rates(0.0), default=0) == 0
