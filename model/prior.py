"""An image classifier beside the encoder: frozen features of pictures it has learned from before.

An encoder that starts from random weights sees textures and nothing of what a picture shows, and a
few thousand pictures do not teach it that. Where pretrained weights of the encoder itself are not
to be had, a small convolutional network that was trained on ImageNet lends it what it knows: its
maps at the encoder's four resolutions are added to the encoder's own at the start of each stage
(as in the spatial prior of ViT-Adapter, Chen et al. 2023, without its attention).

The network is EfficientNet-Lite0 (Tan and Le 2019; the Lite variant of 2020 has neither
squeeze-and-excitation nor swish) up to the third of its four blocks with 192 channels, with batch
norm folded into its convolutions.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEM = 32
_STAGES = (  # expansion, kernel, stride of the first block, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 3),
)
_LENT = (1, 2, 4, 5)  # stages whose maps are at 1/4, 1/8, 1/16 and 1/32
_MEAN, _STD = 127.0, 128.0  # of levels, as the classifier was trained


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow; added to the input where shapes allow."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        """Build the layers, biases included: batch norm is folded into them."""
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, groups=wide)
        self.reduce = nn.Conv2d(wide, out, 1)
        self._adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, D, ceil(h / stride), ceil(w / stride))."""
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y: Tensor = self.reduce(F.relu6(_same(self.depthwise, wide), inplace=True))
        return x + y if self._adds else y


class ImagePrior(nn.Module):
    """The frozen classifier, and a learned linear map for each of the maps that it lends."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        """Build it with drawn weights, for stages of an encoder of `channels`."""
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2)
        self.stages = nn.ModuleList()
        widths = (_STEM, *(stage[3] for stage in _STAGES))
        for (before, after), (expansion, kernel, stride, _, depth) in zip(
            pairwise(widths), _STAGES, strict=True
        ):
            first = InvertedResidual(before, after, expansion, kernel, stride)
            others = (
                InvertedResidual(after, after, expansion, kernel, 1) for _ in range(depth - 1)
            )
            self.stages.append(nn.Sequential(first, *others))
        self.stem.requires_grad_(False)
        self.stages.requires_grad_(False)
        self.adapters = nn.ModuleList(
            nn.Linear(_STAGES[lent][3], out) for lent, out in zip(_LENT, channels, strict=True)
        )

    def forward(self, levels: Tensor) -> list[Tensor]:
        """Return what is added to the maps of an encoder.

        Args:
            levels: RGB (B, 3, H, W), 0 to 255.

        Returns:
            Four maps (B, ceil(H/r_i), ceil(W/r_i), C_i), r = 4, 8, 16, 32.
        """
        lent = []
        with torch.no_grad():
            x = ((levels - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
            x = F.relu6(_same(self.stem, x), inplace=True)
            for number, stage in enumerate(self.stages):
                x = stage(x)
                if number in _LENT:
                    lent.append(x.permute(0, 2, 3, 1))
        return [
            adapter(F.layer_norm(feature, feature.shape[-1:]))
            for adapter, feature in zip(self.adapters, lent, strict=True)
        ]


def _same(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve with TensorFlow's padding `same`: what is odd of it lies right and below."""
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    padding = []
    for side in (x.shape[3], x.shape[2]):
        missing = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        padding += [missing // 2, missing - missing // 2]
    return F.conv2d(F.pad(x, padding), layer.weight, layer.bias, stride, groups=layer.groups)
