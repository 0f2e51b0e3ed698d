"""Schemas of reviews: what moderators decide about detections."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.contract.schemas import ID_PATTERN, Detection, Link, ModelInfo, Problem
from pictures.findings import Probability, Thresholds, Verdict

MAX_NOTE = 2000
"""Maximum length of a note in characters."""

MAX_IDS = 100
"""Maximum number of detections in one request."""


class Decision(StrEnum):
    """What a moderator decided; `withdrawn` takes the decision before it back."""

    GENUINE = "genuine"
    AI = "ai"
    MANIPULATED = "manipulated"
    UNSURE = "unsure"
    WITHDRAWN = "withdrawn"


Opinion = Literal[Decision.GENUINE, Decision.AI, Decision.MANIPULATED, Decision.UNSURE]
"""The decisions that a review can be given."""


_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_Note = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=MAX_NOTE, pattern=rf"^[^{_CONTROLS}]*$"),
    AfterValidator(lambda note: note.replace("\r\n", "\n").replace("\r", "\n")),
]
Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, max_length=100, pattern=rf"^[^{_CONTROLS}\t\n\r\u2028\u2029]*$"
    ),
]
"""A person's display name; may be empty."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewReview(_Request):
    """Body of `POST /v1/detections/{id}/review`."""

    decision: Opinion
    note: _Note = Field("", description="reason, for colleagues and for later")
    reviewer: Name = Field("", description="display name of the person; the key's name is added")


class BulkReview(NewReview):
    """Body of `POST /v1/reviews`: the same review for several detections."""

    ids: list[Annotated[str, Field(max_length=64, pattern=ID_PATTERN)]] = Field(
        min_length=1, max_length=MAX_IDS, description="ids of the detections"
    )


class Facts(BaseModel):
    """What the reviewer saw: the picture's hash, and the result at that time."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the uploaded file")
    ai_probability: Probability | None = Field(
        default=None, description="null: the detection had no result"
    )
    verdict: Verdict | None = None
    manipulated: bool | None = None
    thresholds: Thresholds | None = None
    model: ModelInfo | None = None

    @classmethod
    def of(cls, detection: Detection) -> Facts:
        """The facts of a record."""
        return cls(
            sha256=detection.image.sha256,
            ai_probability=detection.ai_probability,
            verdict=detection.verdict,
            manipulated=detection.manipulated,
            thresholds=detection.thresholds,
            model=detection.model,
        )


class Review(Facts):
    """One entry of a detection's history of decisions."""

    detection_id: str
    version: int = Field(ge=1, description="counts the entries of this detection")
    decision: Decision
    note: str | None = Field(default=None, description="null: erased, or none was given")
    reviewer: str | None = Field(
        default=None, description="display name; null: erased, or none was given"
    )
    key: str | None = Field(default=None, description="name of the key; null: erased")
    created_at: datetime
    erased_at: datetime | None = Field(
        default=None, description="when note and names were erased (`?purge=true`)"
    )


class Assignment(BaseModel):
    """Who has a detection open; ends by itself at `expires_at`."""

    detection_id: str
    reviewer: str | None = Field(description="display name of the person, if one was given")
    key: str = Field(description="name of the key")
    expires_at: datetime


class ReviewState(BaseModel):
    """Response of `GET /v1/detections/{id}/review`."""

    detection_id: str
    review: Review | None = Field(
        default=None, description="the current decision; null: none, or withdrawn"
    )
    history: list[Review] = Field(description="all entries, newest first, with withdrawals")
    assignment: Assignment | None = Field(default=None, description="who has the detection open")


class ReviewList(BaseModel):
    """Response of `GET /v1/reviews`: a page of reviews, or those of `ids`."""

    reviews: list[Review] = Field(description="newest first; with `ids`: in their order")
    next: Link | None = Field(default=None, description="path of the next page, if there is one")
    missing: list[str] = Field(default=[], description="those of `ids` that have no review")
    assignments: list[Assignment] = Field(
        default=[], description="with `ids`: who has which of them open"
    )


class ReviewEntry(BaseModel):
    """Result for one detection of `POST /v1/reviews`: a review or a problem."""

    detection_id: str
    status: int = Field(description="the HTTP status that this review would have had alone")
    review: Review | None = None
    problem: Problem | None = None


class ReviewResults(BaseModel):
    """Response of `POST /v1/reviews`."""

    results: list[ReviewEntry] = Field(description="in the order of `ids`")


class ReviewConflict(Problem):
    """Problem document of `review_conflict`."""

    review: Review | None = Field(
        default=None, description="the current decision; null: none, or withdrawn"
    )


class NextDetection(BaseModel):
    """Response of `POST /v1/reviews/next`; both null: nothing is left to decide."""

    detection: Detection | None = None
    assignment: Assignment | None = None


class AssignmentList(BaseModel):
    """Response of `GET /v1/reviews/assigned`."""

    assignments: list[Assignment] = Field(description="the one that ends last first")
