"""Results of the detector for a picture, and facts about its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.regions import MaskSummary
from model.views import Layout
from pictures.findings import Note, Thresholds, Verdict


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """The network that is being served."""

    name: str
    version: str
    trained: bool
    backbone: str
    parameters: int
    """Number of weights."""
    crop_size: int
    """Side of a crop, pixels."""
    device: str
    dtype: str
    thresholds: Thresholds
    glance_thresholds: Thresholds
    """Thresholds of verdicts from the glance alone."""
    min_side: int
    """As in `GammaConfig`."""
    glances: bool
    """Whether the network has a prior (`model.glance`)."""
    checkpoint: str | None
    """Directory or hub id; None for the built-in one."""
    results: dict[str, Any] | None
    """Evaluation results of the checkpoint (`results.json`), if any."""
    digest: str | None
    """As `checkpoint.digest` gives it; None for a network that was not loaded."""


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """Result for one picture of H x W pixels."""

    ai_probability: float
    """Calibrated probability that a neural network made the picture or a part of it, 0 to 1."""
    verdict: Verdict
    thresholds: Thresholds
    """The thresholds that were applied."""
    manipulated: bool | None
    """Whether the manipulation mask marks more than `thresholds.manipulated_area`."""
    masks: "Masks | None"
    """None, like `manipulated`, for the view `glance`."""
    layout: Layout
    notes: tuple[Note, ...] = ()


class Mask(NamedTuple):
    """Mask of one segmentation head."""

    values: NDArray[np.uint8]
    """Probability (H, W), 255 means 1."""
    summary: MaskSummary


class Masks(NamedTuple):
    """Masks of both segmentation heads."""

    ai: Mask
    """A neural network made the pixel."""
    manipulation: Mask
    """The pixel was altered."""


def decisive(findings: Sequence[Finding]) -> int:
    """Index of the frame whose result counts for all: that with the highest probability.

    The maximum, because an animation with one generated frame contains generated content, which
    the mean of many genuine frames would hide.
    """
    return max(range(len(findings)), key=lambda at: findings[at].ai_probability)


def manipulated(findings: Sequence[Finding]) -> bool | None:
    """Whether any frame is manipulated; None without masks."""
    marks = [one.manipulated for one in findings]
    return None if None in marks else any(marks)
