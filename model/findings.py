"""What the detector says of a picture, and of itself."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.config import Thresholds
from model.regions import MaskSummary
from model.views import Layout


class Verdict(StrEnum):
    """What a picture is called, by the thresholds of the checkpoint."""

    AUTHENTIC = "authentic"
    UNCERTAIN = "uncertain"
    AI_GENERATED = "ai_generated"


class Note(StrEnum):
    """What a reader of a score has to know of this picture."""

    MARKS_CONTRADICT_SCORE = "marks_contradict_score"
    """It is called authentic, and parts of it are marked as AI."""
    MOSTLY_TEXT = "mostly_text"
    """Networks like this one call too many pages of text generated."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
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
    """Those of verdicts from the glance alone."""
    glances: bool
    """Whether the network has a prior that glances at the whole picture."""
    checkpoint: str | None
    """Directory or hub id it came from; None for the built-in one."""
    results: dict[str, Any] | None
    """What the checkpoint says of its quality, if anything."""
    digest: str | None
    """As `checkpoint.digest` gives it; None for a network that was not loaded."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What was found in one picture of H x W pixels."""

    ai_probability: float
    """Calibrated probability that a neural network made the picture or a part of it, 0 to 1."""
    verdict: Verdict
    thresholds: Thresholds
    """Those that gave the verdict."""
    manipulated: bool | None
    """Whether the manipulation mask marks a larger part of the picture than is tolerated."""
    masks: "Masks | None"
    """None, like `manipulated`, where the picture was only glanced at."""
    layout: Layout
    notes: tuple[Note, ...] = ()


class Mask(NamedTuple):
    """What one segmentation head says of each pixel."""

    values: NDArray[np.uint8]
    """Probability (H, W), 255 means 1."""
    summary: MaskSummary


class Masks(NamedTuple):
    """What both segmentation heads say."""

    ai: Mask
    """A neural network made the pixel."""
    manipulation: Mask
    """The pixel was altered."""
