from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import tower
from model.config import GammaConfig
from model.network import GammaModel
from tests.towers import small_tower

__all__ = ["small_tower"]


@pytest.fixture(scope="session")
def real_tower() -> tower.Tower:
    """The built-in tower, loaded once."""
    return tower.load()


@pytest.fixture
def make_model() -> Callable[..., GammaModel]:
    """Make a small network whose weights are large enough for every part to matter."""

    def make(**fields: Any) -> GammaModel:
        torch.manual_seed(0)
        defaults = {"backbone": "mit_b0", "decoder_channels": 32, "output_channels": 24}
        model = GammaModel(GammaConfig(**defaults | fields))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.startswith("encoder."):
                    parameter.add_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
            for name, buffer in model.named_buffers():
                if "running" in name:
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
        return model

    return make


@pytest.fixture
def photo() -> Callable[[int, int], NDArray[np.uint8]]:
    """Make a picture (H, W, 3) with smooth parts and fine detail."""

    def make(height: int, width: int) -> NDArray[np.uint8]:
        y, x = np.mgrid[:height, :width]
        waves = [127 + 90 * np.sin(x / a + y / b) for a, b in ((17, 31), (23, -19), (-37, 11))]
        noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
        return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)

    return make
