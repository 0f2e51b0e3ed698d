"""Encoders: hierarchical transformers with feature maps at strides 4, 8, 16 and 32."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    PreTrainedModel,
    PvtV2Config,
    PvtV2Model,
    SegformerConfig,
    SegformerModel,
)

STRIDES = (4, 8, 16, 32)
"""Stride of each stage's map, pixels."""

_WIDE = (64, 128, 320, 512)
_MIT: dict[str, dict[str, Any]] = {
    "mit_b0": {"depths": (2, 2, 2, 2), "hidden_sizes": (32, 64, 160, 256)},
    "mit_b1": {"depths": (2, 2, 2, 2), "hidden_sizes": _WIDE},
    "mit_b2": {"depths": (3, 4, 6, 3), "hidden_sizes": _WIDE},
    "mit_b3": {"depths": (3, 4, 18, 3), "hidden_sizes": _WIDE},
    "mit_b4": {"depths": (3, 8, 27, 3), "hidden_sizes": _WIDE},
    "mit_b5": {"depths": (3, 6, 40, 3), "hidden_sizes": _WIDE},
}


def build_encoder(backbone: str, channels: int = 3) -> PreTrainedModel:
    """Build an encoder with random weights.

    Args:
        backbone: A backbone of `GammaConfig`.
        channels: Input channels.

    Returns:
        `SegformerModel` (MiT) or `PvtV2Model`; `config.hidden_sizes` gives C_1...C_4.
    """
    if backbone == "pvt_v2_b2":
        config = PvtV2Config(num_channels=channels, depths=(3, 4, 6, 3), hidden_sizes=_WIDE)
        return PvtV2Model(config)
    return SegformerModel(SegformerConfig(num_channels=channels, **_MIT[backbone]))


def encode(
    encoder: PreTrainedModel, pixel_values: Tensor, side_features: list[Tensor | None] | None = None
) -> list[Tensor]:
    """Compute F_i = E(I), the maps of the four stages, channels last.

    For MiT the library's layers are called one by one: its own forward pass converts every map to
    channels first and back around each depthwise convolution and after each stage.

    Args:
        encoder: What `build_encoder` returned.
        pixel_values: Normalised pictures (B, 3, H, W), or the input that replaces them
            (B, C, H, W).
        side_features: Maps of the returned shapes, added to the patch embeddings of each stage
            (None: nothing); MiT only.

    Returns:
        Four maps (B, ceil(H/r_i), ceil(W/r_i), C_i), r = 4, 8, 16, 32.
    """
    if isinstance(encoder, SegformerModel):
        return _encode_mit(encoder, pixel_values, side_features)
    maps = encoder(pixel_values, output_hidden_states=True).hidden_states
    return [feature.permute(0, 2, 3, 1) for feature in maps]


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer to the channels of every position.

    Args:
        x: A map (B, h, w, C).
        weight: Matrix (D, C).
        bias: Vector (D,).

    Returns:
        The map (B, h, w, D).
    """
    if x.device.type == "cpu" and x.dtype == torch.float32:
        # oneDNN's convolution is a third faster than the BLAS behind F.linear.
        y = F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias)
        return y.permute(0, 2, 3, 1)
    return F.linear(x, weight, bias)


def _encode_mit(
    encoder: SegformerModel, pixel_values: Tensor, side_features: list[Tensor | None] | None
) -> list[Tensor]:
    features: list[Tensor] = []
    x = pixel_values.contiguous(memory_format=torch.channels_last)  # (B, C, H, W)
    stages: Any = encoder.stages
    for number, stage in enumerate(stages):
        embedding = stage.patch_embeddings
        x = embedding.layer_norm(embedding.proj(x).permute(0, 2, 3, 1))  # (B, H/r, W/r, C)
        added = None if side_features is None else side_features[number]
        if added is not None:
            x = x + added
        for block in stage.blocks:
            x = x + block.drop_path(_attend(block.attention, block.layernorm_before(x)))
            x = x + block.drop_path(_mix(block.mlp, block.layernorm_after(x)))
        x = stage.layer_norm(x)
        features.append(x)
        x = x.permute(0, 3, 1, 2)  # (B, C, H/r, W/r), still channels last in memory
    return features


def _attend(attention: Any, x: Tensor) -> Tensor:
    """Compute MiT's self-attention on (B, h, w, C), with keys and values from a reduced map."""
    reduced = x
    if attention.sequence_reduction_ratio > 1:
        reduction = attention.sequence_reduction
        reduced = reduction.sequence_reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        reduced = reduction.layer_norm(reduced)

    def heads(tensor: Tensor) -> Tensor:  # (B, heads, tokens, d)
        batch, height, width, _ = tensor.shape
        return tensor.view(batch, height * width, -1, attention.head_dim).transpose(1, 2)

    query = heads(_apply(attention.q_proj, x))
    key, value = (heads(_apply(p, reduced)) for p in (attention.k_proj, attention.v_proj))
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
        # The fused kernel does not use the CPU's bfloat16 instructions; plain products do.
        scores = query @ (key * attention.scaling).transpose(2, 3)  # (B, heads, tokens, reduced)
        mixed = scores.softmax(-1) @ value
    else:
        mixed = F.scaled_dot_product_attention(query, key, value)
    return _apply(attention.o_proj, mixed.transpose(1, 2).reshape(x.shape))


def _mix(mlp: Any, x: Tensor) -> Tensor:
    """Compute MiT's Mix-FFN on (B, h, w, C): linear, depthwise convolution, linear."""
    x = _apply(mlp.fc1, x)  # (B, h, w, 4C)
    x = mlp.dwconv.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return _apply(mlp.fc2, mlp.activation_fn(x))


def _apply(layer: nn.Linear, x: Tensor) -> Tensor:
    return project(x, layer.weight, layer.bias)
