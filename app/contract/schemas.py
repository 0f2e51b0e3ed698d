"""Schemas of the API and of records, error codes, and the name of the worker's job."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainSerializer, SerializationInfo

from pictures.findings import (
    MAX_FRAMES,
    Note,
    NotJudged,
    Probability,
    Region,
    Thresholds,
    Verdict,
    View,
)
from pictures.origin import Provenance, Says

JOB_FUNCTION = "gamma.detect"
"""The only RQ function name that a worker accepts; it is compared, never imported."""

ID_PATTERN = "^[!-~]+$"
"""Ids in requests: visible ASCII characters, which every database can compare."""


def _below_root(path: str, info: SerializationInfo) -> str:
    context = info.context or {}
    return f"{context.get(ROOT_PATH, '')}{path}"


ROOT_PATH = "root_path"
"""Key of the serialization context: path below which a proxy serves the API."""

Link = Annotated[str, PlainSerializer(_below_root)]
"""A path of the API, stored without the root path and sent with it."""

Seconds = Annotated[float, Field(ge=0, description="seconds")]


class ErrorCode(StrEnum):
    """Stable error codes."""

    ORIGIN_REFUSED = "origin_refused"
    KEY_MISSING = "key_missing"
    KEY_INVALID = "key_invalid"
    RATE_LIMITED = "rate_limited"
    HEAD_TOO_LARGE = "head_too_large"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    MALFORMED_REQUEST = "malformed_request"
    FILE_MISSING = "file_missing"
    FILE_EMPTY = "file_empty"
    UPLOAD_TOO_LARGE = "upload_too_large"
    TOO_MANY_UPLOADS = "too_many_uploads"
    TOO_MANY_DOWNLOADS = "too_many_downloads"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_UNSUPPORTED = "format_unsupported"
    CAMERA_RAW = "camera_raw"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_ELONGATED = "too_elongated"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_UNDECODABLE = "image_undecodable"
    DECODING_ABORTED = "decoding_aborted"
    VIEW_REFUSED = "view_refused"
    PROCESSING_FAILED = "processing_failed"
    MODEL_OUTPUT_INVALID = "model_output_invalid"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    DETECTION_UNFINISHED = "detection_unfinished"
    DETECTION_FAILED = "detection_failed"
    DETECTION_EXPIRED = "detection_expired"
    NO_MASKS = "no_masks"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    WEBHOOK_REFUSED = "webhook_refused"
    FETCH_REFUSED = "fetch_refused"
    FETCH_FAILED = "fetch_failed"
    QUEUE_SHARE_FULL = "queue_share_full"
    QUEUE_FULL = "queue_full"
    QUEUE_SLOW = "queue_slow"
    QUEUE_TIMEOUT = "queue_timeout"
    REDIS_UNAVAILABLE = "redis_unavailable"
    STORAGE_SHARE_FULL = "storage_share_full"
    STORAGE_FULL = "storage_full"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    NO_WORKER = "no_worker"
    REVIEW_CONFLICT = "review_conflict"
    ASSIGNMENT_TAKEN = "assignment_taken"
    REVIEWS_UNAVAILABLE = "reviews_unavailable"
    INTERNAL_ERROR = "internal_error"


class Status(StrEnum):
    """Status of a detection: queued → processing → succeeded | failed | expired."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"

    @property
    def finished(self) -> bool:
        """Whether this status is final."""
        return self not in (Status.QUEUED, Status.PROCESSING)


class Head(StrEnum):
    """The two segmentation heads."""

    AI = "ai"
    MANIPULATION = "manipulation"


class ImageInfo(BaseModel):
    """Data from the header of an upload; width and height are of the upright picture."""

    width: int = Field(gt=0, description="pixels, after EXIF orientation")
    height: int = Field(gt=0, description="pixels, after EXIF orientation")
    format: str = Field(description="container format, e.g. JPEG")
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    frames: int | None = Field(
        default=None,
        gt=0,
        description="frames of an animation or pages of a TIFF, of which up to `view.frames` are "
        "examined; 1 for a still; null: not known",
    )


class ViewInfo(BaseModel):
    """What the model saw of a picture; all fields but `mode` are set with the result."""

    mode: View = Field(
        description="`auto`: tiles over the whole picture, as many as the device can compute "
        "within seconds; `tiled`: up to the limit; `center`: one crop; `glance`: no crops, no masks"
    )
    frames: int = Field(
        default=1,
        ge=1,
        le=MAX_FRAMES,
        description="how many frames of an animation or pages of a TIFF to examine at most, as "
        "asked with `frames`; not more than the file has",
    )
    tiles: int | None = Field(
        default=None, description="number of computed crops, those of all frames together"
    )
    glances: int | None = Field(
        default=None,
        description="number of glances at the whole picture, or parts of it, strongly shrunk",
    )
    frame: int | None = Field(
        default=None,
        description="frame of an animation or page of a TIFF, of `image.frames`, that the score "
        "and the masks are of: 1 is the first that is displayed",
    )
    scale: float | None = Field(
        default=None,
        description="scale at which the crops (without crops: the glance) were taken; "
        "1 = native resolution",
    )

    @property
    def asked(self) -> str:
        """What the caller asked for, as one string for keys."""
        return self.mode.value if self.frames == 1 else f"{self.mode} {self.frames}"


class FrameInfo(BaseModel):
    """Result for one frame of an animation or page of a TIFF."""

    frame: int = Field(ge=1, description="number of the frame: 1 is the first that is displayed")
    time_ms: int | None = Field(
        ge=0, description="time at which it is displayed first, ms; null for a page"
    )
    ai_probability: Probability
    verdict: Verdict
    manipulated: bool | None = Field(description="null without masks")


class MaskInfo(BaseModel):
    """Summary of a mask (probability map), and its URLs."""

    area_fraction: Probability = Field(description="fraction of pixels at or above the threshold")
    max: Probability
    regions: list[Region] = Field(description="largest first")
    mask_url: Link = Field(description="8-bit grey PNG, picture size")
    overlay_url: Link = Field(description="RGBA PNG heat map, picture size")


class Masks(BaseModel):
    """Masks of both segmentation heads."""

    ai: MaskInfo
    manipulation: MaskInfo


class ModelInfo(BaseModel):
    """Name and version of the model."""

    name: str
    version: str = Field(description="`untrained` for the built-in random initialisation")
    digest: str | None = Field(
        default=None,
        description="identifies weights and config: 16 hex digits of a SHA-256; null "
        "in records of older releases",
    )


class Timings(BaseModel):
    """Durations of the steps of a detection."""

    queued: Seconds
    decode: Seconds
    forward: Seconds
    encode: Seconds
    total: Seconds


class DetectionError(BaseModel):
    """Why a detection failed or expired."""

    code: ErrorCode
    detail: str


class Detection(BaseModel):
    """The record of one detection, as `GET /v1/detections/{id}` returns it."""

    id: str
    ref_id: str | None = Field(default=None, description="the caller's own reference")
    status: Status = Status.QUEUED
    queue_position: int | None = Field(
        default=None,
        ge=1,
        description="place in the queue, 1 is next; callers take turns, so that it can also grow. "
        "Null unless the detection is queued, and in answers to uploads and webhooks",
    )
    expected_wait: Seconds | None = Field(
        default=None,
        description="estimated time until a worker begins with it, s: its place divided by the "
        "current rate of all workers. Null: no position, or no detection has ended since it came",
    )
    cached: bool = Field(
        default=False,
        description="whether the result is that of an earlier detection of the picture",
    )
    ai_probability: Probability | None = Field(
        default=None, description="of several frames: the highest of them"
    )
    verdict: Verdict | None = None
    manipulated: bool | None = Field(
        default=None,
        description="null without masks; of several frames: whether any of them is manipulated",
    )
    frames: list[FrameInfo] | None = Field(
        default=None,
        description="results of the examined frames, in order, if several were asked for and the "
        "file has several. `masks`, `notes` and `view.scale` are of the frame with the highest "
        "ai_probability, `view.frame`",
    )
    not_judged: NotJudged | None = Field(
        default=None,
        description="why a detection that succeeded has no score, verdict and masks. `too_small`: "
        "a side is shorter than the model's `min_side` (`GET /v1/model`), and below it scores are "
        "guesses. More reasons may be added",
    )
    notes: list[Note] = Field(
        default=[],
        description="reasons to be careful with the score. `marks_contradict_score`: the "
        "verdict is `authentic`, but parts are marked as AI; `mostly_text`: a page of text, which "
        "often gets too high a score. More notes may be added",
    )
    thresholds: Thresholds | None = None
    masks: Masks | None = Field(default=None, description="null with `view=glance`")
    image: ImageInfo
    view: ViewInfo
    model: ModelInfo | None = None
    timings: Timings | None = None
    provenance: Provenance | None = Field(
        default=None,
        description="what the file itself says of its origin; it does not affect the score. Null "
        "until the file is read, and in records of older releases",
    )
    created_at: datetime
    finished_at: datetime | None = None
    expires_at: datetime
    error: DetectionError | None = None

    def says(self, says: Says) -> bool:
        """Whether any statement of the file says so."""
        return self.provenance is not None and self.provenance.has(says)


class DetectionList(BaseModel):
    """Response of `GET /v1/detections`: a page of the caller's detections, or those of `ids`."""

    detections: list[Detection] = Field(description="newest first; with `ids`: in their order")
    next: Link | None = Field(
        default=None,
        description="path of the next page, if there is one; with conditions a page may be short, "
        "or empty, with others to follow",
    )
    missing: list[str] = Field(
        default=[], description="those of `ids` that do not exist or belong to another caller"
    )


class Deletions(BaseModel):
    """Response of `DELETE /v1/detections`."""

    dry_run: bool = Field(description="true: nothing was deleted")
    deleted: list[str] = Field(description="ids that were deleted, or would be")
    missing: list[str] = Field(
        default=[], description="those of `ids` that do not exist or belong to another caller"
    )
    more: bool = Field(
        description="whether others may meet the conditions: repeat the request until it is false"
    )


class DetectionEvent(BaseModel):
    """Data of an event of `GET /v1/events`."""

    id: str = Field(description="id of the detection")
    status: Status = Field(description="`succeeded` or `failed`")


class Usage(BaseModel):
    """Response of `GET /v1/usage`: usage and limits of the caller."""

    caller: str = Field(description="name of the caller; `anonymous` without keys")
    waiting: int = Field(description="detections that wait for a worker")
    oldest_wait: Seconds = Field(description="how long the oldest of them has waited, s")
    kept_bytes: int = Field(
        description="stored bytes of pictures and masks; a picture sent twice counts once"
    )
    reserved_bytes: int = Field(
        description="memory reserved for the results of unfinished detections"
    )
    uploads_left: int | None = Field(description="pictures you may upload now; null: no rate limit")
    rate_limit: str | None = Field(description="maximum upload rate, e.g. `600/minute`; null: none")
    queue_limit: int | None = Field(
        description="maximum number of waiting detections; null: your share"
    )
    storage_limit: int | None = Field(
        description="maximum of stored and reserved bytes; null: your share"
    )
    weight: float = Field(description="part of queue and storage relative to other callers")


class ServiceStatus(BaseModel):
    """Response of `/livez` and `/readyz`."""

    status: Literal["ok"] = "ok"
    workers: int | None = Field(default=None, description="number of warm workers (readiness only)")
    suspended: bool | None = Field(
        default=None,
        description="whether the queue is suspended (`rq suspend`; readiness only)",
    )


class Problem(BaseModel):
    """RFC 9457 problem document (`application/problem+json`)."""

    type: Link = Field(description="URI reference of the problem type")
    title: str
    status: int
    detail: str
    code: ErrorCode = Field(description="stable, for programs")
    request_id: str
    detection: Link | None = Field(
        default=None, description="path of the record, where there is one"
    )
    retry_after: int | None = Field(
        default=None, description="seconds until you should try again, as in `Retry-After`"
    )


class BatchEntry(BaseModel):
    """Result of one file of a batch: a detection or a problem."""

    status: int = Field(description="the HTTP status that this file would have had alone")
    detection: Detection | None = None
    problem: Problem | None = None


class BatchResults(BaseModel):
    """Response of `POST /v1/detections/batch`."""

    results: list[BatchEntry] = Field(description="in the order of the files")


def mask_path(detection_id: str, head: Head) -> str:
    """Path of a head's mask."""
    return f"{detection_path(detection_id)}/masks/{head}.png"


def overlay_path(detection_id: str, head: Head) -> str:
    """Path of a head's heat map."""
    return f"{detection_path(detection_id)}/overlays/{head}.png"


def detection_path(detection_id: str) -> str:
    """Path of the record."""
    return f"/v1/detections/{detection_id}"
