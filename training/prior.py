"""The weights of `model.prior`, from a file of EfficientNet-Lite0."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from model.prior import ImagePrior, InvertedResidual
from training.config import ConfigError

_EPSILON = 1e-3  # of its batch norms


def load(prior: ImagePrior, file: Path) -> None:
    """Give the classifier its weights, its batch norms folded into its convolutions.

    Args:
        prior: Changed in place.
        file: A state dict with the names of the package `efficientnet_lite_pytorch`
            (`_conv_stem.weight`, `_blocks.0._bn1.running_mean`...). It may be a pickle and is read
            as tensors only: nothing in it can run.

    Raises:
        ConfigError: It cannot be read, or is another network's.
    """
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"start.prior: {file}: {error}") from error
    if not isinstance(weights, dict):
        raise ConfigError(f"start.prior: {file}: not a table of tensors")
    try:
        for layer, convolution, norm in _places(prior):
            _fold(layer, weights[f"{convolution}.weight"], norm, weights)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(f"start.prior: {file}: no EfficientNet-Lite0: {error}") from error


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
