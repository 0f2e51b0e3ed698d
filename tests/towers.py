"""Small networks and CLIP towers for tests that do not depend on their outputs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import tower
from model.config import GammaConfig
from model.network import GammaModel
from model.tower import GRID, TOKENS, WIDTH, Tower, TowerFeatures


def small_checkpoint(folder: Path) -> Path:
    """A network that computes a 64-pixel crop in milliseconds; returns its folder."""
    torch.manual_seed(0)
    parts = {"backbone": "mit_b0", "decoder_channels": 32, "output_channels": 24}
    config = GammaConfig(**parts, crop_size=64, version="small", trained=True)
    GammaModel(config).save_pretrained(folder)
    return folder


class SmallTower(Tower):
    """Computes features from mean colours with a fixed linear map."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        generator = torch.Generator().manual_seed(0)
        self.patches = nn.Linear(3, WIDTH).requires_grad_(False)
        self.tokens = nn.Linear(3, TOKENS).requires_grad_(False)
        for layer in (self.patches, self.tokens):
            layer.weight.normal_(generator=generator)
            layer.bias.normal_(generator=generator)

    def forward(self, levels: Tensor) -> TowerFeatures:
        pixels = levels.to(self.patches.weight.dtype) / 255
        patches = F.adaptive_avg_pool2d(pixels, GRID).permute(0, 2, 3, 1)
        return TowerFeatures(self.tokens(patches.mean((1, 2))), self.patches(patches))


@pytest.fixture
def small_tower(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the towers of all networks by `SmallTower`; returns the requested sources."""
    sources: list[str] = []

    def load(source: str) -> Tower:
        sources.append(source)
        return SmallTower()

    monkeypatch.setattr(tower, "load", load)
    return sources
