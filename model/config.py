"""Configuration of a GAMMA checkpoint: architecture, loss weights and serving rules."""

import math
from dataclasses import asdict, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from transformers import PreTrainedConfig

from model.architecture import Architecture
from pictures.findings import UNTRAINED, Thresholds

FORMAT_VERSION = 1
"""Version of the checkpoint format that this code writes and reads."""

Pooling = Literal["mean", "max", "top3"]

_CHOICES = {
    name: get_args(hint)
    for name, hint in {**get_type_hints(Architecture), "pooling": Pooling}.items()
    if get_origin(hint) is Literal
}
_UNTRAINED = asdict(UNTRAINED)
_NARROW_BACKBONES = ("mit_b0", "mit_b1")  # SegFormer decodes these at 256 channels, others at 768
_HEAD_NAMES: dict[str, tuple[str, ...]] = {
    "none": (),
    "manipulation": ("manipulation",),
    "ai": ("ai",),
    "both": ("ai", "manipulation"),
}


class GammaConfig(PreTrainedConfig, Architecture):  # type: ignore[no-untyped-call]
    """Architecture, loss weights and serving rules of a GAMMA network.

    Attributes:
        version: As in `Architecture`.
        initializer_range: Standard deviation of random initial weights.
        trained: Whether the weights were trained.
        image_mean: Mean per RGB channel of pictures scaled to [0, 1].
        image_std: Standard deviation per RGB channel, likewise.
        pooling: Pooling of the logits of a picture's tiles, chosen on validation pictures:
            `mean`, `max`, or `top3`, the mean of the three largest (of all if there are fewer).
        part_offset: Added to the pooled logits of the tiles without the glance's, and then combined
            with the glance's logit by `pooling.either`; None: the tiles' logits are pooled as the
            network computes them, with the glance's (calibration).
        part_gain: Weight, in a tile's AI mask, of the tile's logit without the glance's.
        whole_offset: Added to the glance's logit and then combined with every pixel of the AI mask
            by `pooling.either`; None: not combined (calibration).
        temperature: Divisor of the pooled logit before the sigmoid (calibration).
        glance_temperature: Divisor of the logit of the glance alone.
        mask_offsets: Added to the mask logits before the sigmoid, by head, so that both heads
            share one threshold (calibration).
        thresholds: The fields of `Thresholds` by name.
        glance_thresholds: Thresholds of verdicts from the glance alone.
        min_side: Shortest side in pixels from which scores carry information, measured; smaller
            pictures are not judged. 0: all are.
        format_version: Version of the checkpoint format.
    """

    model_type = "gamma"

    version: str = "untrained"
    initializer_range: float = 0.02
    trained: bool = False
    image_mean: tuple[float, ...] | list[float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] | list[float] = (0.229, 0.224, 0.225)
    pooling: Pooling = "mean"
    part_offset: float | None = None
    part_gain: float = 0.0
    whole_offset: float | None = None
    temperature: float = 1.0
    glance_temperature: float = 1.0
    mask_offsets: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    glance_thresholds: dict[str, float] = field(default_factory=dict)
    min_side: int = 0
    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in dependent defaults; raise ValueError if a value is invalid."""
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        if self.prior != "none" and not self.backbone.startswith("mit_"):
            raise ValueError(f"prior: not for {self.backbone}")
        self.decoder_channels = self.decoder_channels or (
            256 if self.backbone in _NARROW_BACKBONES else 768
        )
        self.output_channels = self.output_channels or self.decoder_channels
        self.thresholds = asdict(Thresholds(**_UNTRAINED | self.thresholds))
        self.glance_thresholds = asdict(Thresholds(**_UNTRAINED | self.glance_thresholds))
        self._check_offsets()
        self._check_numbers()
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    def _check_offsets(self) -> None:
        if unknown := self.mask_offsets.keys() - _HEAD_NAMES["both"]:
            raise ValueError(f"mask_offsets: there is no head {', '.join(sorted(unknown))}")
        if not all(math.isfinite(offset) for offset in self.mask_offsets.values()):
            raise ValueError("mask_offsets must be finite")
        for name in ("part_offset", "part_gain", "whole_offset"):
            if not math.isfinite(getattr(self, name) or 0.0):
                raise ValueError(f"{name} must be finite")

    def _check_numbers(self) -> None:
        for name in (
            "decoder_channels",
            "output_channels",
            "temperature",
            "glance_temperature",
            "input_channels",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite")
        for name in ("classification_weight", "ai_weight", "manipulation_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        if self.min_side < 0:
            raise ValueError("min_side must not be negative")
        if self.crop_size < 32 or self.crop_size % 32:
            raise ValueError("crop_size must be a multiple of 32")
        if not len(self.image_mean) == len(self.image_std) == 3 or not min(self.image_std) > 0:
            raise ValueError("image_mean and image_std need three values each, image_std above 0")

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the segmentation heads, `ai` first."""
        return _HEAD_NAMES[self.heads]
