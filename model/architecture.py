"""What defines a network and its training loss: shared by checkpoints and training settings.

Free of torch and transformers, so that commands can read settings quickly.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import with_config


@with_config(extra="forbid")
@dataclass(kw_only=True)
class Architecture:
    """Name, architecture and loss weights of a network.

    Every row of Tables 4, 7 and 8 of the paper is a configuration: `heads`, the loss weights and
    `cross_attention`.

    Attributes:
        name: Name of the model, as the service reports it.
        version: Version of these weights.
        backbone: Encoder: MiT-B0...B5, or PVTv2-B2.
        decoder_channels: C, the width of the decoders (equation 1); 0: SegFormer's, which is 256
            for B0 and B1 and 768 for the others.
        output_channels: C_dec, the width of F_dec and of the classification feature (equations 3
            and 5); 0: `decoder_channels`.
        heads: The segmentation heads.
        cross_attention: `reverse` is the paper's (equations 7 and 8); in `forward` the query is
            the classification feature and keys are the segmentation features; `dual`: the sum
            of both; `none`.
        key_value: Keys and values of the reverse attention: `tokens` are the positions of the
            last stage; `pooled` is the paper's literal single token, which has no effect.
        classification_weight: Weight of the image loss (alpha of equation 6).
        ai_weight: Weight of the AI mask loss (alpha of equation 6).
        manipulation_weight: Weight of the manipulation mask loss.
        crop_size: Side in pixels of the square crops that the network is trained and served with.
        input: Input of the encoder: `rgb`, normalised colours, as in the paper; or
            `cooccurrence`, learned vectors of differences between neighbouring pixels
            (`model.cooccurrence`). These hold almost no content, so that an encoder learns
            low-level traces without pretraining on millions of pictures.
        input_channels: Length of these vectors.
        prior: `clip_vit_b16` adds features of a frozen CLIP image tower for the whole picture
            (`model.glance`); `none`, as in the paper.
        tower: Directory or hub id of the tower's weights; empty: those in the package.
    """

    name: str = "gamma"
    version: str = "1"
    backbone: Literal["mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5", "pvt_v2_b2"] = (
        "mit_b2"
    )
    decoder_channels: int = 0
    output_channels: int = 0
    heads: Literal["none", "manipulation", "ai", "both"] = "both"
    cross_attention: Literal["none", "forward", "dual", "reverse"] = "reverse"
    key_value: Literal["tokens", "pooled"] = "tokens"
    classification_weight: float = 2.0
    ai_weight: float = 2.0
    manipulation_weight: float = 1.0
    crop_size: int = 512
    input: Literal["rgb", "cooccurrence"] = "rgb"
    input_channels: int = 32
    prior: Literal["none", "clip_vit_b16"] = "none"
    tower: str = ""
