"""From the published weights to those of the prior."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from model.prior import ImagePrior
from tests.efficientnet import published
from training import network
from training.config import ConfigError, Settings

Configure = Callable[..., Settings]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "efficientnet.pth"
    torch.save(published().state_dict(), file)
    return file


def build(configure: Configure, file: Path) -> ImagePrior:
    model = network.build(configure("model.prior=efficientnet_lite0", f"start.prior={file}"))
    assert model.prior is not None
    return model.prior


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_the_maps_are_those_of_the_published_network(
    configure: Configure, weights: Path, size: tuple[int, int]
) -> None:
    prior = build(configure, weights)
    levels = torch.randint(0, 256, (2, 3, *size)).float()
    expected = published()(levels)
    seen: list[torch.Tensor] = []
    for adapter in prior.adapters:
        adapter.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    prior(levels)
    for found, block in zip(seen, (2, 4, 10, 13), strict=True):
        maps = expected[block].permute(0, 2, 3, 1)
        normal = torch.nn.functional.layer_norm(maps, maps.shape[-1:])
        assert_close(found, normal, atol=1e-3, rtol=1e-3)


def test_a_file_that_would_run_code_runs_none(configure: Configure, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (mark,)

    file = tmp_path / "hostile.pth"
    file.write_bytes(pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(ConfigError, match=r"start\.prior: .*hostile\.pth"):
        build(configure, file)
    assert not mark.exists()


def test_other_weights_are_refused(configure: Configure, tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        build(configure, tmp_path / "none.pth")
    state = torch.load(weights, weights_only=True)
    for change in ({"_bn0.bias": torch.zeros(3)}, {"_conv_stem.weight": None}):
        torch.save({**state, **change}, weights)
        with pytest.raises(ConfigError, match="no EfficientNet-Lite0"):
            build(configure, weights)
    torch.save(torch.zeros(3), weights)
    with pytest.raises(ConfigError, match="not a table of tensors"):
        build(configure, weights)
