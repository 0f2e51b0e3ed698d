"""EfficientNet-Lite0 as it was published, batch norms and all."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = [  # channels in and out, expansion, kernel, stride; Tan and Le 2019, table 1
    (32, 16, 1, 3, 1),
    (16, 24, 6, 3, 2),
    (24, 24, 6, 3, 1),
    (24, 40, 6, 5, 2),
    (40, 40, 6, 5, 1),
    (40, 80, 6, 3, 2),
    (80, 80, 6, 3, 1),
    (80, 80, 6, 3, 1),
    (80, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
    (112, 112, 6, 5, 1),
    (112, 192, 6, 5, 2),
    (192, 192, 6, 5, 1),
    (192, 192, 6, 5, 1),
]


def same_convolution(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """TensorFlow's padding `same`, by its definition."""
    size = kernel.shape[-1]
    for axis in (2, 3):
        side = x.shape[axis]
        steps = (side + stride - 1) // stride
        missing = max(0, (steps - 1) * stride + size - side)
        before = [missing // 2 if other == axis else 0 for other in (2, 3)]
        after = [missing - missing // 2 if other == axis else 0 for other in (2, 3)]
        x = F.pad(x, (before[1], after[1], before[0], after[0]))
    return F.conv2d(x, kernel, stride=stride, groups=x.shape[1] // kernel.shape[1])


class Published(nn.Module):
    """The first fourteen blocks; `forward` gives the map after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(map(_block, BLOCKS))

    @torch.no_grad()
    def forward(self, levels: Tensor) -> list[Tensor]:
        x = same_convolution((levels - 127) / 128, self._conv_stem.weight, 2)
        x = self._bn0(x).clamp(0, 6)
        found = []
        for layers, (channels, out, _, _, stride) in zip(self._blocks, BLOCKS, strict=True):
            y = x
            if hasattr(layers, "_expand_conv"):
                y = layers._bn0(layers._expand_conv(y)).clamp(0, 6)
            y = layers._bn1(same_convolution(y, layers._depthwise_conv.weight, stride)).clamp(0, 6)
            y = layers._bn2(layers._project_conv(y))
            x = x + y if stride == 1 and channels == out else y
            found.append(x)
        return found


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _block(shape: tuple[int, int, int, int, int]) -> nn.Module:
    channels, out, expansion, kernel, _ = shape
    wide = channels * expansion
    layers = nn.Module()
    if expansion > 1:
        layers._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
        layers._bn0 = _norm(wide)
    layers._depthwise_conv = nn.Conv2d(wide, wide, kernel, groups=wide, bias=False)
    layers._bn1 = _norm(wide)
    layers._project_conv = nn.Conv2d(wide, out, 1, bias=False)
    layers._bn2 = _norm(out)
    return layers
