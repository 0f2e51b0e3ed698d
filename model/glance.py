"""A glance at the whole picture: features of a frozen image tower beside the encoder.

An encoder trained from random weights on a few thousand pictures learns textures, not content. CLIP
was trained on hundreds of millions of pictures. Its class tokens are added to the classification
feature, and its patch tokens to the encoder's last two stages, like the spatial prior of
ViT-Adapter (Chen et al. 2023) without attention. The paper has no such prior, nor has
`configs/paper.toml`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import tower
from model.tower import Tower, TowerFeatures

GLANCE_SIZE = tower.GRID * tower.PATCH
"""Side of a square glance, pixels."""
_HIDDEN = 256
_DROPOUT = 0.5


class Glance(NamedTuple):
    """What a glance adds to the network, for B pictures."""

    vector: Tensor
    """Added to the classification feature (B, C_dec)."""
    patches: Tensor
    """Added to stages 3 and 4, on a grid over the whole picture (B, 14, 14, C_3 + C_4)."""


class GlanceBranch(nn.Module):
    """The trained layers between the tower and the network; the tower is loaded on first use."""

    def __init__(self, channels: tuple[int, ...], out_channels: int, source: str = "") -> None:
        """Build the layers with random weights.

        Args:
            channels: C_1...C_4 of the encoder.
            out_channels: C_dec.
            source: Directory or hub id of the tower's weights, as in `tower.load`.
        """
        super().__init__()
        self._source = source
        self._tower: tuple[Tower, ...] = ()  # a tuple hides it from parameters and state dict
        self._channels = channels[2:]
        self.tokens = nn.Sequential(
            nn.Linear(tower.TOKENS, _HIDDEN),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_HIDDEN, out_channels),
        )
        self.adapter = nn.Linear(tower.WIDTH, sum(self._channels))

    def look(self, levels: Tensor) -> TowerFeatures:
        """Compute the tower's features of pictures.

        Args:
            levels: RGB (B, 3, h, w), as in `Tower`.

        Raises:
            TowerError: The weights of the tower cannot be loaded.
        """
        weight = self.adapter.weight
        kind = weight.device.type
        # Under autocast the frozen weights would be rounded again in every call.
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else weight.dtype
        with torch.autocast(kind, enabled=False):
            features: TowerFeatures = self.load_tower(weight.device, dtype)(levels)
        return features

    def load_tower(self, device: torch.device, dtype: torch.dtype) -> Tower:
        """Load the tower for a device and a precision, unless it is already loaded.

        Raises:
            TowerError: Its weights cannot be loaded.
        """
        for loaded in self._tower:
            own = next(loaded.parameters())
            if (own.device, own.dtype) == (device, dtype):
                return loaded
        # Reload for another precision: the loaded weights may already be rounded.
        self._tower = (tower.load(self._source).to(device, dtype),)
        return self._tower[0]

    def forward(self, features: TowerFeatures) -> Glance:
        """Map the tower's features to what is added to the network."""
        return Glance(self.tokens(features.tokens), self.adapter(features.patches))

    def side_features(
        self, patches: Tensor, boxes: Tensor, sizes: list[tuple[int, int]]
    ) -> list[Tensor | None]:
        """Sample the patches at the positions of crops.

        Args:
            patches: As in `Glance`.
            boxes: Position of each crop in its glance: left, top, right, bottom, 0 to 1 (B, 4).
            sizes: Height and width of the four stages' maps.

        Returns:
            Maps (B, h_i, w_i, C_i) to add to the four stages; None for the first two.
        """
        # In float32: rounding would move positions, and bfloat16 gives NaN on a CPU.
        maps = torch.split(patches.float().permute(0, 3, 1, 2), list(self._channels), 1)
        maps_by_stage: list[Tensor | None] = [None, None]
        with torch.autocast(patches.device.type, enabled=False):
            for part, (height, width) in zip(maps, sizes[2:], strict=True):
                points = _points(boxes.float(), height, width)  # (B, h, w, 2)
                sampled = F.grid_sample(
                    part, points, mode="bilinear", padding_mode="border", align_corners=False
                )
                maps_by_stage.append(sampled.to(patches.dtype).permute(0, 2, 3, 1))
        return maps_by_stage


def _points(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the cell centres of each box in `grid_sample` coordinates, -1 to 1 (B, h, w, 2)."""
    left, top, right, bottom = boxes.unbind(1)

    def along(start: Tensor, stop: Tensor, count: int) -> Tensor:
        cells = (torch.arange(count, device=boxes.device, dtype=boxes.dtype) + 0.5) / count
        return 2 * (start[:, None] + (stop - start)[:, None] * cells) - 1  # (B, count)

    x = along(left, right, width)[:, None, :].expand(-1, height, -1)
    y = along(top, bottom, height)[:, :, None].expand(-1, -1, width)
    return torch.stack([x, y], -1)
