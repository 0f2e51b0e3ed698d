"""How the network of a run starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import checkpoint
from tests.conftest import photo
from training import network
from training.config import ConfigError, Settings
from training.trainer import normalise

Configure = Callable[..., Settings]


def test_the_seed_decides_the_weights(configure: Configure) -> None:
    first, again, other = (
        network.build(configure(f"train.seed={seed}")).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(values, again[name]) for name, values in first.items())
    assert any(not torch.equal(values, other[name]) for name, values in first.items())


def test_a_high_pass_start_sees_the_enlarged_residual(configure: Configure) -> None:
    drawn = network.build(configure())
    model = network.build(configure("start.patch_embedding=high_pass"))
    picture = torch.from_numpy(np.asarray(photo(48, 48)).copy())
    pixels = normalise(picture[None], model.config)  # (1, 3, 48, 48)
    plain = picture.permute(2, 0, 1)[None].float() / 255
    local_mean = F.avg_pool2d(plain, 3, 1, 1)
    residual = 20 * (plain - local_mean)
    stem = drawn.encoder.stages[0].patch_embeddings.proj
    kernel = F.pad(stem.weight[:, :, 1:-1, 1:-1], (1, 1, 1, 1))
    expected = F.conv2d(residual, kernel, stride=4, padding=3)
    ours = model.encoder.stages[0].patch_embeddings.proj(pixels)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-4, rtol=0)


def test_a_checkpoint_can_be_started_from(configure: Configure, tmp_path: Path) -> None:
    other = network.build(configure("train.seed=7"))
    checkpoint.save(other, tmp_path / "model")
    model = network.build(configure(f"start.checkpoint={tmp_path / 'model'}"))
    weights = other.state_dict()
    assert all(torch.equal(values, weights[name]) for name, values in model.state_dict().items())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.backbone=vgg", "backbone must be one of"),
        ("start.checkpoint=/none", "/none"),
        ("start.encoder=/none.safetensors", "missing"),
    ],
)
def test_what_cannot_be_started_is_named(configure: Configure, option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network.build(configure(option))


def test_stochastic_depth_is_scaled(configure: Configure) -> None:
    def rates(option: float) -> list[float]:
        model = network.build(configure(f"start.drop_path={option}"))
        modules = model.encoder.modules()
        return [m.drop_prob for m in modules if hasattr(m, "drop_prob")]

    assert max(rates(0.2)) == pytest.approx(0.2)
    assert max(rates(0.0), default=0) == 0
