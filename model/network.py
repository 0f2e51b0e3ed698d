"""The GAMMA network: encoder, two segmentation decoders, classifier, reverse cross-attention.

Equation numbers are those of the paper. The parameters are the paper's too, but neighbouring linear
maps are merged, which gives the same outputs up to rounding (`model.reference` is the plain form):

- a linear map commutes with bilinear upsampling, so each stage is projected by W_fuse,i W_i at its
  own resolution, without the 4C-channel concatenation of equation 2;
- a mask needs only the row w_mask W_mlp of the ReLU map, not F_dec of equation 3;
- the scores Q K^T of equation 7 are X (W_mlp^T W_q^T W_k W_cls) F_4^T: one product of the ReLU
  map X with one column per key;
- pooling is a mean over queries, so the rows of the softmax are averaged before the product with V.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from model.config import GammaConfig
from model.cooccurrence import CooccurrenceInput
from model.encoder import STRIDES, build_encoder, encode, project
from model.glance import GLANCE_SIZE, Glance, GlanceBranch
from model.tower import TowerFeatures

IGNORE = 255
"""Label of a pixel that is not supervised."""


@dataclass
class GammaOutput(ModelOutput):
    """Outputs for a batch; None for what was not computed.

    Attributes:
        loss: Equation 6, a scalar; None without labels.
        logits: Image logits (B,): above 0 means AI-generated.
        ai: Mask logits of the AI head (B, H/4, W/4).
        manipulation: Mask logits of the manipulation head (B, H/4, W/4).
        classification_loss: Unweighted image term of the loss.
        ai_loss: Unweighted AI mask term.
        manipulation_loss: Unweighted manipulation mask term.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    ai: Tensor | None = None
    manipulation: Tensor | None = None
    classification_loss: Tensor | None = None
    ai_loss: Tensor | None = None
    manipulation_loss: Tensor | None = None


class MergedHead(NamedTuple):
    """Merged matrices of one head; see the module's docstring."""

    stages: tuple[Tensor, ...]  # 4 x (C, C_i): W_fuse,i W_i, batch norm folded in when evaluating
    bias: Tensor  # (C,)
    mask_weight: Tensor  # (1, C): w_mask W_mlp
    mask_bias: Tensor  # (1,)
    key_weight: Tensor | None = None  # (C, C_4): W_mlp^T W_q^T W_k W_cls / sqrt(d)
    key_bias: Tensor | None = None  # (1, C_4): b_mlp^T W_q^T W_k W_cls / sqrt(d)


class Decoder(nn.Module):
    """One segmentation decoder (equations 1 to 4); parameter names as in SegFormer."""

    def __init__(self, in_channels: tuple[int, ...], channels: int, out_channels: int) -> None:
        """Build the layers for stages of `in_channels`, C = `channels`, C_dec = `out_channels`."""
        super().__init__()
        self.linear_projections = nn.ModuleList(nn.Linear(c, channels) for c in in_channels)
        self.linear_fuse = nn.Conv2d(len(in_channels) * channels, channels, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(channels)
        self.mlp = nn.Linear(channels, out_channels)
        self.mask_classifier = nn.Conv2d(out_channels, 1, 1)

    def merge_stages(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """Merge equation 1 with the convolution of equation 3, and fold batch norm if frozen.

        Returns:
            The matrices (C, C_i) of the stages and the bias (C,) of their sum.
        """
        layers: Any = self.linear_projections
        parts = self.linear_fuse.weight.flatten(1).chunk(len(layers), dim=1)  # 4 x (C, C)
        stages = [part @ layer.weight for part, layer in zip(parts, layers, strict=True)]
        bias = self.linear_fuse.weight.flatten(1) @ torch.cat([layer.bias for layer in layers])
        if not self.training:
            norm: Any = self.batch_norm  # for mypy, its statistics are optional
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            stages = [scale[:, None] * stage for stage in stages]
            bias = scale * (bias - norm.running_mean) + norm.bias
        return tuple(stages), bias

    def activate(self, features: list[Tensor], merged: MergedHead) -> Tensor:
        """Compute the ReLU map X, that is equation 3 up to its MLP.

        Bilinear upsampling is computed as a product with one small matrix per axis, which is
        faster than interpolation and sums the stages in place.

        Args:
            features: F_1...F_4, each (B, H/r_i, W/r_i, C_i).
            merged: Merged matrices of this decoder.

        Returns:
            X (B, H/4, W/4, C).
        """
        first, *coarser = [
            project(feature, weight)
            for feature, weight in zip(features, merged.stages, strict=True)
        ]  # (B, H/r_i, W/r_i, C)
        # Upsampling keeps a bias, so add it to the smallest map; autocast leaves it in float32.
        coarser[-1] = coarser[-1] + merged.bias.to(first.dtype)
        batch, height, width, _ = first.shape
        rows = first.flatten(0, 1)  # (B * H/4, W/4, C)
        for projected in coarser:
            down = _upsampling(projected.shape[1], height, projected)  # (H/4, H/r_i)
            across = _upsampling(projected.shape[2], width, projected)  # (W/4, W/r_i)
            tall = down @ projected.flatten(2)  # (B, H/4, W/r_i * C)
            tall = tall.view(len(rows), projected.shape[2], -1)  # (B * H/4, W/r_i, C)
            rows = rows.baddbmm_(across.expand(len(rows), -1, -1), tall)
        x = rows.view(batch, height, width, -1)  # (B, H/4, W/4, C)
        if self.training:
            x = self.batch_norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x.relu_()


def _upsampling(coarse: int, fine: int, like: Tensor) -> Tensor:
    """Return the matrix (fine, coarse) of bilinear upsampling along one axis."""
    identity = torch.eye(coarse, device=like.device)
    matrix = F.interpolate(identity[None], fine, mode="linear")[0].T
    return matrix.to(like.dtype)


class CrossAttention(nn.Module):
    """Projections of one single-head attention (equation 7), d_head = C_dec, without biases."""

    def __init__(self, channels: int) -> None:
        """Build the three projections for features of C_dec = `channels`."""
        super().__init__()
        self.scaling = channels**-0.5
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels, bias=False)


class GammaModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The GAMMA network on tensors; `model.detector` handles pictures."""

    config_class = GammaConfig
    config: GammaConfig
    base_model_prefix = "gamma"
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: GammaConfig) -> None:
        """Build the network of `config` with random weights."""
        super().__init__(config)
        heads = config.head_names
        self.input = None
        if config.input == "cooccurrence":
            self.input = CooccurrenceInput(config.input_channels)
        self.encoder = build_encoder(config.backbone, config.input_channels if self.input else 3)
        in_channels = tuple(self.encoder.config.hidden_sizes)
        self.glance = None
        if config.prior != "none":
            self.glance = GlanceBranch(in_channels, config.output_channels, config.tower)
        self.decoders = nn.ModuleDict(
            {
                h: Decoder(in_channels, config.decoder_channels, config.output_channels)
                for h in heads
            }
        )
        self.cls_projection = nn.Linear(in_channels[-1], config.output_channels)
        self.reverse_attention = nn.ModuleDict()
        self.forward_attention = nn.ModuleDict()
        for head in heads:
            if config.cross_attention in ("reverse", "dual"):
                self.reverse_attention[head] = CrossAttention(config.output_channels)
            if config.cross_attention in ("forward", "dual"):
                self.forward_attention[head] = CrossAttention(config.output_channels)
        self.classifier = nn.Linear(config.output_channels, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save with the current parameter names.

        By default the library renames the encoder's weights to the names of its older versions.
        """
        super().save_pretrained(*args, **{"save_original_format": False} | kwargs)

    def _decoder(self, head: str) -> Decoder:
        return cast(Decoder, self.decoders[head])

    def merge(self) -> dict[str, MergedHead]:
        """Merge the matrices of every head, in the parameters' own precision.

        In training `forward` calls this in every pass, with gradients. With frozen weights the
        result can be kept and passed to `forward`.
        """
        # Autocast must not round these products; they cost little.
        with torch.autocast(self.device.type, enabled=False):
            return {head: self._merge_head(head) for head in self.decoders}

    def _merge_head(self, head: str) -> MergedHead:
        decoder = self._decoder(head)
        stages, bias = decoder.merge_stages()
        row = decoder.mask_classifier.weight.flatten(1)  # (1, C_dec)
        mask_bias = F.linear(decoder.mlp.bias, row, decoder.mask_classifier.bias)
        merged = MergedHead(stages, bias, row @ decoder.mlp.weight, mask_bias)
        if head not in self.reverse_attention:
            return merged
        attention = cast(CrossAttention, self.reverse_attention[head])
        # A bias of the keys shifts all scores of a query by the same value: no effect on softmax.
        key = attention.k_proj.weight @ self.cls_projection.weight  # (C_dec, C_4)
        key = attention.scaling * attention.q_proj.weight.T @ key  # (C_dec, C_4)
        return merged._replace(
            key_weight=decoder.mlp.weight.T @ key, key_bias=decoder.mlp.bias[None] @ key
        )

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        ai_labels: Tensor | None = None,
        manipulation_labels: Tensor | None = None,
        merged: dict[str, MergedHead] | None = None,
        glance: Glance | None = None,
        boxes: Tensor | None = None,
        features: TowerFeatures | None = None,
    ) -> GammaOutput:
        """Compute logits and, with labels, the loss of equation 6.

        Args:
            pixel_values: RGB levels, 0 to 255, of crops (B, 3, H, W); H and W at least 32.
            labels: 1 for AI-generated pictures, 0 for others (B,).
            ai_labels: 1 for AI-generated pixels, 0 for others, IGNORE: not supervised (B, H, W).
            manipulation_labels: The same for altered pixels.
            merged: Result of `merge`, if the weights are frozen.
            glance: Result of `look` for the crops' pictures, one row per crop; by default the crops
                are taken for whole pictures.
            boxes: Position of the crops in these pictures: left, top, right, bottom, 0 to 1
                (B, 4); by default the whole picture.
            features: Tower features of these pictures, instead of `glance`, to train the layers
                between the tower and the network.

        Returns:
            Logits, and losses of the terms with labels.
        """
        if merged is None:
            merged = self.merge()
        if self.glance is not None and glance is None:
            glance = self.glance(features or self.glance.look(_shrink(pixel_values)))
        stages = self._encode(pixel_values, glance, boxes)  # 4 x (B, H/r_i, W/r_i, C_i)
        tokens = stages[-1].flatten(1, 2)  # (B, N, C_4)
        cls = self.cls_projection(tokens.mean(1))  # (B, C_dec), equation 5
        corrected = cls
        masks: dict[str, Tensor] = {}
        for head, weights in merged.items():
            x = self._decoder(head).activate(stages, weights)  # (B, H/4, W/4, C)
            masks[head] = F.linear(x, weights.mask_weight, weights.mask_bias).squeeze(-1)
            x = x.flatten(1, 2)  # (B, M, C)
            if head in self.reverse_attention:
                corrected = corrected + self._attend_reverse(head, x, tokens, weights)
            if head in self.forward_attention:
                corrected = corrected + self._attend_forward(head, x, cls)
        if glance is not None:
            corrected = corrected + glance.vector
        logits = self.classifier(corrected).squeeze(-1)  # (B,)
        targets = {"ai": ai_labels, "manipulation": manipulation_labels}
        losses = _losses(logits, masks, labels, targets)
        loss = self._weigh(losses) if losses else None
        return GammaOutput(loss=loss, logits=logits, **masks, **losses)

    def _encode(self, levels: Tensor, glance: Glance | None, boxes: Tensor | None) -> list[Tensor]:
        """Compute F_1...F_4 of crops (B, 3, H, W); a glance adds to the last two."""
        side_features = None
        if self.glance is not None and glance is not None:
            if boxes is None:
                boxes = levels.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(levels), 4)
            height, width = levels.shape[2:]
            sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
            side_features = self.glance.side_features(glance.patches, boxes, sizes)
        inputs = self._normalise(levels) if self.input is None else self.input(levels)
        return encode(self.encoder, inputs, side_features)

    def look(self, levels: Tensor) -> Glance:
        """Compute what a glance adds, for whole pictures.

        Args:
            levels: RGB levels, 0 to 255, of shrunken pictures (B, 3, h, w); h and w are multiples
                of `tower.PATCH`.

        Returns:
            One row per picture; the shape does not depend on h and w.

        Raises:
            ValueError: The network has no prior.
            TowerError: The weights of the tower cannot be loaded.
        """
        if self.glance is None:
            raise ValueError("this network has no prior")
        return cast(Glance, self.glance(self.glance.look(levels)))

    def classify(self, glance: Glance) -> Tensor:
        """Compute image logits (B,) from the glance alone."""
        return cast(Tensor, self.classifier(glance.vector).squeeze(-1))

    def _normalise(self, levels: Tensor) -> Tensor:
        """Normalise RGB levels (B, 3, H, W), 0 to 255, by the config's mean and std."""
        exact = levels.to(torch.promote_types(levels.dtype, torch.float32))
        mean, std = (
            255 * exact.new_tensor(values)[:, None, None]
            for values in (self.config.image_mean, self.config.image_std)
        )
        return ((exact - mean) / std).to(levels.dtype)

    def _attend_reverse(self, head: str, x: Tensor, tokens: Tensor, weights: MergedHead) -> Tensor:
        """Compute equations 7 and 8 with queries X (B, M, C) and keys F_4 (B, N, C_4).

        Linear and GAP of equation 5 commute, so Linear(F_4) are tokens whose mean is F_cls. With
        the single token F_cls (`pooled`) the softmax over one key is always 1.
        """
        if weights.key_weight is None or weights.key_bias is None:
            raise ValueError(f"the merged {head} head lacks its attention")
        if self.config.key_value == "pooled":
            tokens = tokens.mean(1, keepdim=True)  # (B, 1, C_4)
        keys = F.linear(tokens, weights.key_weight)  # (B, N, C)
        offset = F.linear(tokens, weights.key_bias).transpose(1, 2)  # (B, 1, N)
        scores = torch.baddbmm(offset, x, keys.transpose(1, 2))  # (B, M, N)
        attention = scores.softmax(-1).mean(1, keepdim=True)  # (B, 1, N)
        value = self.cls_projection((attention @ tokens).squeeze(1))  # (B, C_dec)
        correction: Tensor = cast(CrossAttention, self.reverse_attention[head]).v_proj(value)
        return correction

    def _attend_forward(self, head: str, x: Tensor, cls: Tensor) -> Tensor:
        """Compute equation 7 with the query F_cls (B, C_dec) and keys F_dec = MLP(X)."""
        attention = cast(CrossAttention, self.forward_attention[head])
        mlp = self._decoder(head).mlp
        query = attention.q_proj(cls) @ attention.k_proj.weight @ mlp.weight  # (B, C)
        scores = (x @ query.unsqueeze(-1)).squeeze(-1) * attention.scaling  # (B, M)
        mixed = (scores.softmax(-1).unsqueeze(1) @ x).squeeze(1)  # (B, C)
        correction: Tensor = attention.v_proj(mlp(mixed))
        return correction

    def _weigh(self, losses: dict[str, Tensor]) -> Tensor:
        """Compute equation 6: the weighted sum of the terms with labels."""
        weights = {
            "classification_loss": self.config.classification_weight,
            "ai_loss": self.config.ai_weight,
            "manipulation_loss": self.config.manipulation_weight,
        }
        return torch.stack([weights[term] * loss for term, loss in losses.items()]).sum()


def _losses(
    logits: Tensor,
    masks: dict[str, Tensor],
    labels: Tensor | None,
    targets: dict[str, Tensor | None],
) -> dict[str, Tensor]:
    """Compute the unweighted terms of equation 6 that have labels."""
    losses: dict[str, Tensor] = {}
    if labels is not None:
        losses["classification_loss"] = F.binary_cross_entropy_with_logits(
            logits.float(), labels.float()
        )
    for head, target in targets.items():
        if target is not None and head in masks:
            losses[f"{head}_loss"] = _mask_loss(masks[head], target)
    return losses


def _shrink(levels: Tensor) -> Tensor:
    """Resize square crops (B, 3, H, W) to the size of a glance."""
    resized = F.interpolate(
        levels.float(), (GLANCE_SIZE, GLANCE_SIZE), mode="bicubic", antialias=True
    )
    return resized.clamp(0, 255).to(levels.dtype)


def _mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy over the supervised pixels; 0 if there are none.

    Args:
        logits: Low-resolution mask logits (B, H/4, W/4); upsampled as in equation 4.
        target: Labels 0, 1 or IGNORE (B, H, W).

    Returns:
        A scalar.
    """
    upsampled = F.interpolate(logits[:, None].float(), target.shape[1:], mode="bilinear")[:, 0]
    supervised = target != IGNORE
    # Multiply by the mask instead of indexing: no synchronisation with the device.
    losses = F.binary_cross_entropy_with_logits(
        upsampled, torch.where(supervised, target, 0).float(), reduction="none"
    )
    return (losses * supervised).sum() / supervised.sum().clamp(min=1)
