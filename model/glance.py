"""A glance at the whole picture beside the encoder: what a frozen image tower lends the network.

An encoder that starts from random weights sees textures and nothing of what a picture shows, and a
few thousand pictures do not teach it that. CLIP has seen hundreds of millions. Its class tokens
are added to the classification feature, and its patch tokens to the encoder's last two stages
(as in the spatial prior of ViT-Adapter, Chen et al. 2023, without its attention). The paper has
nothing of the kind; `configs/paper.toml` leaves it out.
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
    """What the network takes from a glance at each of B pictures."""

    vector: Tensor
    """Added to the classification feature (B, C_dec)."""
    patches: Tensor
    """Added to the third and the fourth stage, laid over the picture (B, 14, 14, C_3 + C_4)."""


class GlanceBranch(nn.Module):
    """The learned layers between the tower and the network; the tower is loaded when needed."""

    def __init__(self, channels: tuple[int, ...], out_channels: int, source: str = "") -> None:
        """Build the layers with drawn weights.

        Args:
            channels: C_1...C_4 of the encoder.
            out_channels: C_dec.
            source: Where the tower's weights come from, as in `tower.load`.
        """
        super().__init__()
        self._source = source
        self._tower: tuple[Tower, ...] = ()  # a tuple: no part of what is trained and saved
        self._channels = channels[2:]
        self.tokens = nn.Sequential(
            nn.Linear(tower.TOKENS, _HIDDEN),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_HIDDEN, out_channels),
        )
        self.adapter = nn.Linear(tower.WIDTH, sum(self._channels))

    def look(self, levels: Tensor) -> TowerFeatures:
        """Compute what the tower says of pictures.

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
        """Load the tower for a device and a precision, unless it is at hand.

        Raises:
            TowerError: Its weights cannot be loaded.
        """
        for loaded in self._tower:
            own = next(loaded.parameters())
            if (own.device, own.dtype) == (device, dtype):
                return loaded
        # Loaded anew for another precision: the weights at hand may be rounded already.
        self._tower = (tower.load(self._source).to(device, dtype),)
        return self._tower[0]

    def forward(self, features: TowerFeatures) -> Glance:
        """Turn what the tower says into what the network takes."""
        return Glance(self.tokens(features.tokens), self.adapter(features.patches))

    def lend(
        self, patches: Tensor, boxes: Tensor, sizes: list[tuple[int, int]]
    ) -> list[Tensor | None]:
        """Lay the patches over crops.

        Args:
            patches: As in `Glance`.
            boxes: Where each crop lies in its glance: left, top, right, bottom as shares (B, 4).
            sizes: Height and width of the four stages' maps.

        Returns:
            Maps (B, h_i, w_i, C_i) to be added to the four stages; None for the first two.
        """
        # In float32: rounded places would be others, and of bfloat16 torch makes NaN on a CPU.
        maps = torch.split(patches.float().permute(0, 3, 1, 2), list(self._channels), 1)
        lent: list[Tensor | None] = [None, None]
        with torch.autocast(patches.device.type, enabled=False):
            for part, (height, width) in zip(maps, sizes[2:], strict=True):
                points = _points(boxes.float(), height, width)  # (B, h, w, 2)
                sampled = F.grid_sample(
                    part, points, mode="bilinear", padding_mode="border", align_corners=False
                )
                lent.append(sampled.to(patches.dtype).permute(0, 2, 3, 1))
        return lent


def _points(boxes: Tensor, height: int, width: int) -> Tensor:
    """Centres of the cells of each box as `grid_sample` counts them, -1 to 1 (B, h, w, 2)."""
    left, top, right, bottom = boxes.unbind(1)

    def along(start: Tensor, stop: Tensor, count: int) -> Tensor:
        cells = (torch.arange(count, device=boxes.device, dtype=boxes.dtype) + 0.5) / count
        return 2 * (start[:, None] + (stop - start)[:, None] * cells) - 1  # (B, count)

    x = along(left, right, width)[:, None, :].expand(-1, height, -1)
    y = along(top, bottom, height)[:, :, None].expand(-1, -1, width)
    return torch.stack([x, y], -1)
