"""Reference implementation of equations 1 to 8 on the parameters of a `GammaModel`.

It computes every intermediate result of the paper and merges nothing, so it is slow. Tests compare
the network with it, and benchmarks measure the speed-up; the service does not use it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from model.encoder import build_encoder
from model.network import IGNORE, GammaModel, GammaOutput


class ReferenceModel(nn.Module):
    """The paper's network; it shares the parameters of a `GammaModel`."""

    def __init__(self, model: GammaModel, attention: str = "sdpa") -> None:
        """Wrap `model`; `attention` is the encoder's implementation (`sdpa` or `eager`)."""
        super().__init__()
        self.model: Any = model
        self.encoder = _plain_encoder(model, attention)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        ai_labels: Tensor | None = None,
        manipulation_labels: Tensor | None = None,
        levels_of_glance: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> GammaOutput:
        """Compute logits, masks and, with labels, the loss of equation 6.

        Args:
            pixel_values: RGB levels, 0 to 255 (B, 3, H, W).
            labels: 0 or 1 (B,).
            ai_labels: 0, 1 or IGNORE (B, H, W).
            manipulation_labels: 0, 1 or IGNORE (B, H, W).
            levels_of_glance: RGB levels of the shrunken pictures (B, 3, h, w); only with a prior.
            boxes: Position of the crops: left, top, right, bottom as shares of the sides (B, 4).
        """
        model, config = self.model, self.model.config
        mean, std = (
            pixel_values.new_tensor(v)[:, None, None] for v in (config.image_mean, config.image_std)
        )
        seen = (pixel_values / 255 - mean) / std
        if config.input == "cooccurrence":
            seen = model.input(pixel_values)
        side_features: list[Tensor] = []
        if levels_of_glance is not None:
            vector, *side_features = glance(model, levels_of_glance, boxes, pixel_values.shape[2:])
        features = self._encode(seen, side_features)
        pooled = features[-1].mean((2, 3))  # GAP(F_4), (B, C_4)
        cls = model.cls_projection(pooled)[:, None]  # (5), (B, 1, C_dec)
        tokens = model.cls_projection(features[-1].flatten(2).transpose(1, 2))  # (B, N, C_dec)
        keys = cls if config.key_value == "pooled" else tokens
        corrected = cls
        output = GammaOutput()
        for head, decoder in model.decoders.items():
            decoded = decode(decoder, features)  # (B, C_dec, H/4, W/4)
            output[head] = decoder.mask_classifier(decoded)[:, 0]  # (4) before Up_4
            queries = decoded.flatten(2).transpose(1, 2)  # (B, M, C_dec)
            if config.cross_attention in ("reverse", "dual"):
                attended = attend(model.reverse_attention[head], queries, keys)
                corrected = corrected + attended.mean(1, keepdim=True)  # (8)
            if config.cross_attention in ("forward", "dual"):
                corrected = corrected + attend(model.forward_attention[head], cls, queries)
        if levels_of_glance is not None:
            corrected = corrected + vector[:, None]
        output.logits = model.classifier(corrected[:, 0])[:, 0]
        if labels is not None:
            image = F.binary_cross_entropy_with_logits(output.logits, labels)
            output.loss = config.classification_weight * image
            for head, target in (("ai", ai_labels), ("manipulation", manipulation_labels)):
                if head in model.decoders:
                    weight = getattr(config, f"{head}_weight")
                    mask = mask_loss(output[head], target, pixel_values.shape[2:])
                    output.loss = output.loss + weight * mask  # (6)
        return output

    def _encode(self, seen: Tensor, side_features: list[Tensor]) -> tuple[Tensor, ...]:
        """Compute F_1...F_4; side features are added to the embeddings of stages 3 and 4."""
        embeddings = [stage.patch_embeddings for stage in getattr(self.encoder, "stages", [])][2:]
        hooks = []
        for embedding, side in zip(embeddings, side_features):  # noqa: B905 - may be empty
            tokens = side.flatten(2).transpose(1, 2)
            hooks.append(
                embedding.register_forward_hook(
                    lambda _, __, out, tokens=tokens: (out[0] + tokens, *out[1:])
                )
            )
        features: tuple[Tensor, ...] = self.encoder(seen, output_hidden_states=True).hidden_states
        for hook in hooks:
            hook.remove()
        return features


def glance(
    model: Any, levels: Tensor, boxes: Any, size: torch.Size
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what a glance adds: a vector (B, C_dec) and maps (B, C_i, h_i, w_i) of stages 3, 4.

    The map of a crop is cut out of the whole picture's map after enlarging it until the crop's box
    has the size of the stage's map.
    """
    branch = model.glance
    features = branch.look(levels)
    vector = branch.tokens(features.tokens)
    maps = branch.adapter(features.patches).permute(0, 3, 1, 2)
    third, fourth = maps.split(model.encoder.config.hidden_sizes[2:], 1)
    return vector, _crop(third, boxes, size, 16), _crop(fourth, boxes, size, 32)


def _crop(maps: Tensor, boxes: Any, size: torch.Size, stride: int) -> Tensor:
    height, width = (-(-side // stride) for side in size)
    crops = []
    for picture, (left, top, right, bottom) in zip(maps, boxes.tolist(), strict=True):
        whole = round(height / (bottom - top)), round(width / (right - left))
        large = F.interpolate(picture[None], whole, mode="bilinear")
        row, column = round(top * whole[0]), round(left * whole[1])
        crops.append(large[:, :, row : row + height, column : column + width])
    return torch.cat(crops)


def decode(decoder: Any, features: tuple[Tensor, ...]) -> Tensor:
    """Compute equations 1 to 3: F_dec (B, C_dec, H/4, W/4)."""
    size = features[0].shape[2:]
    projected = [
        layer(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for layer, feature in zip(decoder.linear_projections, features, strict=True)
    ]  # (1)
    concat = torch.cat(
        [F.interpolate(p, size, mode="bilinear", align_corners=False) for p in projected], dim=1
    )  # (2), (B, 4C, H/4, W/4)
    hidden = F.relu(decoder.batch_norm(decoder.linear_fuse(concat)))
    decoded: Tensor = decoder.mlp(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (3)
    return decoded


def attend(attention: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """Compute equation 7 for queries (B, M, C_dec) and keys = values (B, N, C_dec)."""
    q, k, v = attention.q_proj(queries), attention.k_proj(keys), attention.v_proj(keys)
    attended: Tensor = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1) @ v
    return attended


def mask_loss(logits: Tensor, target: Any, size: torch.Size) -> Tensor:
    """Compute the binary cross-entropy of the upsampled mask over the supervised pixels."""
    upsampled = F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    chosen = target != IGNORE
    if not chosen.any():
        return upsampled.sum() * 0
    return F.binary_cross_entropy_with_logits(upsampled[chosen], target[chosen].float())


def _plain_encoder(model: GammaModel, attention: str) -> PreTrainedModel:
    """Build the library's encoder with the weights of the model's encoder."""
    channels = model.config.input_channels if model.config.input == "cooccurrence" else 3
    encoder = build_encoder(model.config.backbone, channels)
    encoder.set_attn_implementation(attention)
    names = [name for name, _ in encoder.named_parameters()]
    for name, shared in zip(names, model.encoder.parameters(), strict=True):
        module, _, leaf = name.rpartition(".")
        setattr(encoder.get_submodule(module), leaf, shared)
    encoder.train(model.training)
    return encoder
