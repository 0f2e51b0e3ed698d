"""Labels as a function of the kind of a picture (Table 1 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a picture came to be."""

    AUTHENTIC = "authentic"
    INPAINT = "inpaint"
    BLENDED = "blended"
    COPY_MOVE = "copy_move"
    SPLICE = "splice"
    SYNTHETIC = "synthetic"
    CLASSICAL_INPAINT = "classical_inpaint"
    """Repainted by an algorithm that is no network (diffusion or copying of near-by pixels)."""


class MaskLabel(StrEnum):
    """What a mask of a picture is, before its pixels are read."""

    NONE = "none"
    """All 0."""
    REGION = "region"
    """The region mask of the row: 1 inside, 0 outside."""
    ALL = "all"
    """All 1."""
    UNSUPERVISED = "unsupervised"
    """Not known; takes no part in the loss."""


@dataclass(frozen=True)
class Labels:
    """Targets of one picture."""

    ai_generated: bool
    manipulation: MaskLabel
    ai: MaskLabel

    @property
    def needs_region(self) -> bool:
        """Whether a region mask must come with the picture."""
        return MaskLabel.REGION in (self.manipulation, self.ai)


LABELS: dict[Kind, Labels] = {
    Kind.AUTHENTIC: Labels(False, MaskLabel.NONE, MaskLabel.NONE),
    # The untouched part went through the decoder too, so every pixel is the network's.
    Kind.INPAINT: Labels(True, MaskLabel.REGION, MaskLabel.ALL),
    Kind.BLENDED: Labels(True, MaskLabel.REGION, MaskLabel.REGION),
    Kind.COPY_MOVE: Labels(False, MaskLabel.REGION, MaskLabel.NONE),
    Kind.SPLICE: Labels(False, MaskLabel.REGION, MaskLabel.NONE),
    # Not in Table 1: nothing was manipulated, and nothing is authentic either.
    Kind.SYNTHETIC: Labels(True, MaskLabel.UNSUPERVISED, MaskLabel.ALL),
    # Not in Table 1 either: new pixels, but none from a network, so as copy-move and splicing.
    Kind.CLASSICAL_INPAINT: Labels(False, MaskLabel.REGION, MaskLabel.NONE),
}
