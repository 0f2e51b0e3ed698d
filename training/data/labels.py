"""Labels as a function of the kind of a picture (Table 1 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kind of a picture."""

    AUTHENTIC = "authentic"
    INPAINT = "inpaint"
    BLENDED = "blended"
    COPY_MOVE = "copy_move"
    SPLICE = "splice"
    SYNTHETIC = "synthetic"
    CLASSICAL_INPAINT = "classical_inpaint"
    """Inpainted or retouched by an algorithm without a neural network."""


class MaskLabel(StrEnum):
    """Type of a mask label."""

    NONE = "none"
    """All 0."""
    REGION = "region"
    """The region mask of the row: 1 inside, 0 outside."""
    ALL = "all"
    """All 1."""
    UNSUPERVISED = "unsupervised"
    """Unknown; not part of the loss."""


@dataclass(frozen=True)
class Labels:
    """Labels of one picture."""

    ai_generated: bool
    manipulation: MaskLabel
    ai: MaskLabel

    @property
    def needs_region(self) -> bool:
        """Whether the picture needs a region mask."""
        return MaskLabel.REGION in (self.manipulation, self.ai)


LABELS: dict[Kind, Labels] = {
    Kind.AUTHENTIC: Labels(False, MaskLabel.NONE, MaskLabel.NONE),
    # The rest of the picture went through the decoder too, so all pixels are AI-generated.
    Kind.INPAINT: Labels(True, MaskLabel.REGION, MaskLabel.ALL),
    Kind.BLENDED: Labels(True, MaskLabel.REGION, MaskLabel.REGION),
    Kind.COPY_MOVE: Labels(False, MaskLabel.REGION, MaskLabel.NONE),
    Kind.SPLICE: Labels(False, MaskLabel.REGION, MaskLabel.NONE),
    # Not in Table 1: no part is manipulated, and no part is authentic.
    Kind.SYNTHETIC: Labels(True, MaskLabel.UNSUPERVISED, MaskLabel.ALL),
    # Not in Table 1: new pixels, but not AI-generated, so like copy-move and splicing.
    Kind.CLASSICAL_INPAINT: Labels(False, MaskLabel.REGION, MaskLabel.NONE),
}
