"""Views, verdicts, notes, thresholds and regions: types that the API and the model share."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

Probability = Annotated[float, Field(ge=0, le=1)]


MAX_FRAMES = 8
"""Maximum number of frames or pages of a file that are examined."""


class View(StrEnum):
    """Which part of a picture is analysed, and how."""

    AUTO = "auto"
    """Tiles over the whole picture, limited by the tile budget of the device."""
    TILED = "tiled"
    """Tiles over the whole picture at its own resolution."""
    CENTER = "center"
    """The paper's test protocol: the central square, enlarged if the picture is too small.

    (The paper's padding of one pixel has no effect: the crop is central with or without it.)
    """
    GLANCE = "glance"
    """The whole picture at a few hundred pixels, without tiles: no masks, only a verdict."""


class Verdict(StrEnum):
    """Class of a picture, from its probability and the model's thresholds."""

    AUTHENTIC = "authentic"
    UNCERTAIN = "uncertain"
    AI_GENERATED = "ai_generated"


class NotJudged(StrEnum):
    """Why a picture gets no score and no verdict."""

    TOO_SMALL = "too_small"
    """Its short side is below the model's `min_side`."""


class Note(StrEnum):
    """Reasons to be careful with a score."""

    MARKS_CONTRADICT_SCORE = "marks_contradict_score"
    """The verdict is authentic, but parts are marked as AI."""
    MOSTLY_TEXT = "mostly_text"
    """The picture is mostly text, for which false alarms are frequent."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of a model, stored in its checkpoint."""

    uncertain: Annotated[
        Probability, Field(description="lowest ai_probability that is not `authentic`")
    ]
    ai_generated: Annotated[
        Probability, Field(description="lowest ai_probability that is `ai_generated`")
    ]
    mask: Annotated[Probability, Field(description="lowest probability of a marked pixel")]
    manipulated_area: Annotated[
        Probability,
        Field(
            description="lowest area fraction of the manipulation mask at which `manipulated` is "
            "true"
        ),
    ]

    def __post_init__(self) -> None:
        """Raise ValueError if a threshold is out of range or `uncertain` is the larger."""
        for name, value in asdict(self).items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"thresholds: {name} must lie in [0, 1], not {value}")
        if self.uncertain > self.ai_generated:
            raise ValueError("thresholds: uncertain must not exceed ai_generated")


UNTRAINED = Thresholds(uncertain=0.0, ai_generated=1.0, mask=0.5, manipulated_area=1.0)
"""For an untrained network: every picture is `uncertain` and none is manipulated."""


@dataclass(frozen=True, slots=True)
class Region:
    """A connected region of a mask."""

    box: Annotated[
        tuple[int, int, int, int], Field(description="x, y, width, height in picture pixels")
    ]
    area: Annotated[Probability, Field(description="fraction of the picture")]
    score: Annotated[Probability, Field(description="mean probability in the region")]
