"""Answers of the service, generated from its OpenAPI document by generate.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field
from typing_extensions import TypeAliasType


class Assignment(BaseModel):
    """Who has a detection open; ends by itself at `expires_at`."""

    detection_id: str
    reviewer: str | None
    """display name of the person, if one was given"""
    key: str
    """name of the key"""
    expires_at: AwareDatetime


class AssignmentList(BaseModel):
    """Response of `GET /v1/reviews/assigned`."""

    assignments: list[Assignment]
    """the one that ends last first"""


Confidence = TypeAliasType(
    "Confidence", Literal["signed_trusted", "signed_untrusted", "unsigned"] | str
)
"""How a statement is secured."""


Decision = TypeAliasType(
    "Decision", Literal["genuine", "ai", "manipulated", "unsure", "withdrawn"] | str
)
"""What a moderator decided; `withdrawn` takes the decision before it back."""


class Deletions(BaseModel):
    """Response of `DELETE /v1/detections`."""

    dry_run: bool
    """true: nothing was deleted"""
    deleted: list[str]
    """ids that were deleted, or would be"""
    missing: list[str] = []
    """those of `ids` that do not exist or belong to another caller"""
    more: bool
    """whether others may meet the conditions: repeat the request until it is false"""


ErrorCode = TypeAliasType(
    "ErrorCode",
    Literal[
        "origin_refused",
        "key_missing",
        "key_invalid",
        "rate_limited",
        "head_too_large",
        "too_many_connections",
        "malformed_request",
        "file_missing",
        "file_empty",
        "upload_too_large",
        "too_many_uploads",
        "too_many_downloads",
        "not_an_image",
        "format_unsupported",
        "camera_raw",
        "too_many_pixels",
        "too_elongated",
        "image_truncated",
        "image_undecodable",
        "decoding_aborted",
        "view_refused",
        "processing_failed",
        "model_output_invalid",
        "not_found",
        "method_not_allowed",
        "detection_unfinished",
        "detection_failed",
        "detection_expired",
        "no_masks",
        "idempotency_mismatch",
        "webhook_refused",
        "fetch_refused",
        "fetch_failed",
        "queue_share_full",
        "queue_full",
        "queue_slow",
        "queue_timeout",
        "redis_unavailable",
        "storage_share_full",
        "storage_full",
        "storage_unavailable",
        "no_worker",
        "review_conflict",
        "assignment_taken",
        "reviews_unavailable",
        "internal_error",
    ]
    | str,
)
"""Stable error codes."""


class ImageInfo(BaseModel):
    """Data from the header of an upload; width and height are of the upright picture."""

    width: int
    """pixels, after EXIF orientation"""
    height: int
    """pixels, after EXIF orientation"""
    format: str
    """container format, e.g. JPEG"""
    bytes: int
    sha256: str
    frames: int | None = None
    """frames of an animation or pages of a TIFF, of which up to `view.frames` are examined; 1 for a still; null: not known"""


JsonValue = TypeAliasType("JsonValue", Any)


class MeasuredRow(BaseModel):
    """Measured accuracy on pictures of one generator, or of all, against photographs."""

    pictures: str
    """a generator, or `all generators`"""
    n: int
    """number of AI-generated pictures"""
    auc: float
    auc_interval: tuple[float, float]
    """95 % confidence, bootstrap"""
    tpr_at_fpr_1: float
    """true positive rate at 1 % false positives"""
    tpr_at_fpr_5: float
    """true positive rate at 5 % false positives"""


class ModelInfo(BaseModel):
    """Name and version of the model."""

    name: str
    version: str
    """`untrained` for the built-in random initialisation"""
    digest: str | None = None
    """identifies weights and config: 16 hex digits of a SHA-256; null in records of older releases"""


NotJudged = TypeAliasType("NotJudged", Literal["too_small"] | str)
"""Why a picture gets no score and no verdict."""


Note = TypeAliasType("Note", Literal["marks_contradict_score", "mostly_text"] | str)
"""Reasons to be careful with a score."""


Outcome = TypeAliasType("Outcome", Literal["delivered", "retried", "failed", "refused"] | str)
"""How an attempt ended."""


class Problem(BaseModel):
    """RFC 9457 problem document (`application/problem+json`)."""

    type: str
    """URI reference of the problem type"""
    title: str
    status: int
    detail: str
    code: ErrorCode
    """stable, for programs"""
    request_id: str
    detection: str | None = None
    """path of the record, where there is one"""
    retry_after: int | None = None
    """seconds until you should try again, as in `Retry-After`"""


class Region(BaseModel):
    """A connected region of a mask."""

    box: tuple[int, int, int, int]
    """x, y, width, height in picture pixels"""
    area: float
    """fraction of the picture"""
    score: float
    """mean probability in the region"""


Says = TypeAliasType("Says", Literal["generated", "composite", "captured", "edited"] | str)
"""How the picture was made."""


class ServiceStatus(BaseModel):
    """Response of `/livez` and `/readyz`."""

    status: Literal["ok"] = "ok"
    workers: int | None = None
    """number of warm workers (readiness only)"""
    suspended: bool | None = None
    """whether the queue is suspended (`rq suspend`; readiness only)"""


Skipped = TypeAliasType(
    "Skipped", Literal["not_found", "no_webhook", "unfinished", "under_way"] | str
)
"""Why a message is not sent again."""


Source = TypeAliasType(
    "Source", Literal["c2pa", "xmp", "iptc", "exif", "text", "alpha", "watermark"] | str
)
"""Source of a statement."""


class Statement(BaseModel):
    """A statement of the file about its origin, written by the creator of the file."""

    source: Source
    """`c2pa`: a signed manifest; `xmp`, `iptc`, `exif`: metadata; `text`: what a generator writes; `alpha`: the same, hidden in the opacity; `watermark`: an invisible one"""
    says: Says | None
    """`generated` by AI; `composite`: parts are; `captured` with a camera; `edited`; null: none of these"""
    by: str | None
    """signer, generator, camera or program"""
    confidence: Confidence
    """`signed_trusted`: the signature matches the file, and the signer is on the trust list; `signed_untrusted`: it matches, and anyone may have signed; `unsigned`: no signature that matches, anyone can write it"""
    details: dict[str, JsonValue]
    """depends on the source, see docs/provenance.md; plain text, not HTML"""


Status = TypeAliasType(
    "Status", Literal["queued", "processing", "succeeded", "failed", "expired"] | str
)
"""Status of a detection: queued → processing → succeeded | failed | expired."""


class TestEvent(BaseModel):
    """Requested by `POST /v1/webhooks/test`."""

    event: Literal["webhook.test"] = "webhook.test"
    id: str
    """id of the message; the same when it is sent again"""
    created_at: AwareDatetime


class Tested(BaseModel):
    """The test event that will be sent."""

    id: str
    """id of the message; its attempt will be in the log"""


class Thresholds(BaseModel):
    """Thresholds of a model, stored in its checkpoint."""

    uncertain: float
    """lowest ai_probability that is not `authentic`"""
    ai_generated: float
    """lowest ai_probability that is `ai_generated`"""
    mask: float
    """lowest probability of a marked pixel"""
    manipulated_area: float
    """lowest area fraction of the manipulation mask at which `manipulated` is true"""


class Timings(BaseModel):
    """Durations of the steps of a detection."""

    queued: float
    """seconds"""
    decode: float
    """seconds"""
    forward: float
    """seconds"""
    encode: float
    """seconds"""
    total: float
    """seconds"""


class Usage(BaseModel):
    """Response of `GET /v1/usage`: usage and limits of the caller."""

    caller: str
    """name of the caller; `anonymous` without keys"""
    waiting: int
    """detections that wait for a worker"""
    oldest_wait: float
    """how long the oldest of them has waited, s"""
    kept_bytes: int
    """stored bytes of pictures and masks; a picture sent twice counts once"""
    reserved_bytes: int
    """memory reserved for the results of unfinished detections"""
    uploads_left: int | None
    """pictures you may upload now; null: no rate limit"""
    rate_limit: str | None
    """maximum upload rate, e.g. `600/minute`; null: none"""
    queue_limit: int | None
    """maximum number of waiting detections; null: your share"""
    storage_limit: int | None
    """maximum of stored and reserved bytes; null: your share"""
    weight: float
    """part of queue and storage relative to other callers"""


Verdict = TypeAliasType("Verdict", Literal["authentic", "uncertain", "ai_generated"] | str)
"""Class of a picture, from its probability and the model's thresholds."""


View = TypeAliasType("View", Literal["auto", "tiled", "center", "glance"] | str)
"""Which part of a picture is analysed, and how."""


class ViewInfo(BaseModel):
    """What the model saw of a picture; all fields but `mode` are set with the result."""

    mode: View
    """`auto`: tiles over the whole picture, as many as the device can compute within seconds; `tiled`: up to the limit; `center`: one crop; `glance`: no crops, no masks"""
    frames: int = 1
    """how many frames of an animation or pages of a TIFF to examine at most, as asked with `frames`; not more than the file has"""
    tiles: int | None = None
    """number of computed crops, those of all frames together"""
    glances: int | None = None
    """number of glances at the whole picture, or parts of it, strongly shrunk"""
    frame: int | None = None
    """frame of an animation or page of a TIFF, of `image.frames`, that the score and the masks are of: 1 is the first that is displayed"""
    scale: float | None = None
    """scale at which the crops (without crops: the glance) were taken; 1 = native resolution"""


class Attempt(BaseModel):
    """One attempt to deliver a message."""

    id: str
    """id of the message, as in the header `webhook-id`"""
    detection_id: str | None
    """null: a test event"""
    host: str
    """host of the URL"""
    tried_at: AwareDatetime
    number: int
    """number of this attempt"""
    outcome: Outcome
    status: int | None
    """HTTP status of the answer; null: there was none"""
    reason: str
    """status, or why there was no answer"""
    seconds: float
    """duration of the attempt"""


class Attempts(BaseModel):
    """Attempts to deliver your webhooks, newest first."""

    attempts: list[Attempt]


class DetectionError(BaseModel):
    """Why a detection failed or expired."""

    code: ErrorCode
    detail: str


class FrameInfo(BaseModel):
    """Result for one frame of an animation or page of a TIFF."""

    frame: int
    """number of the frame: 1 is the first that is displayed"""
    time_ms: int | None
    """time at which it is displayed first, ms; null for a page"""
    ai_probability: float
    verdict: Verdict
    manipulated: bool | None
    """null without masks"""


class MaskInfo(BaseModel):
    """Summary of a mask (probability map), and its URLs."""

    area_fraction: float
    """fraction of pixels at or above the threshold"""
    max: float
    regions: list[Region]
    """largest first"""
    mask_url: str
    """8-bit grey PNG, picture size"""
    overlay_url: str
    """RGBA PNG heat map, picture size"""


class Masks(BaseModel):
    """Masks of both segmentation heads."""

    ai: MaskInfo
    manipulation: MaskInfo


class Measured(BaseModel):
    """Measured accuracy of a model on pictures that it was not trained on."""

    conditions: str
    """which pictures, and how they were prepared"""
    photographs: int
    false_alarms: float
    """share of them with the verdict `ai_generated`"""
    false_alarms_interval: tuple[float, float]
    """95 % confidence, Wilson"""
    rows: Annotated[list[MeasuredRow], Field(min_length=1)]
    """all generators first"""


class ModelFacts(BaseModel):
    """Response of `GET /v1/model`: a summary of the model card."""

    name: str
    version: str
    digest: str | None
    """of weights and config, as in records"""
    trained: bool
    """false: the weights are random and scores mean nothing"""
    backbone: str
    parameters: int
    crop_size: int
    """side of a crop, pixels"""
    min_side: int
    """shortest side of a picture that gets a score, pixels; 0: any picture does"""
    thresholds: Thresholds
    fetch: bool = False
    """whether an upload may name a `url` in place of a file"""
    search_links: bool = True
    """whether the page links to reverse image searches, which are other services"""
    notice: str | None
    """reliability of the scores"""
    measured: Measured | None = None
    """null: the checkpoint has no results"""


class ProvenanceSummary(BaseModel):
    """The strongest statement: trusted signatures first, then AI before editing before camera."""

    says: Says | None
    """null: no statement says it, which proves nothing"""
    by: str | None
    confidence: Confidence | None
    text: str
    """one or two sentences, with what the statement is worth"""


class Replayed(BaseModel):
    """What happens to each detection."""

    replayed: list[str]
    """their messages are sent again, with all retries"""
    skipped: dict[str, Skipped]
    """reasons by id"""


class Review(BaseModel):
    """One entry of a detection's history of decisions."""

    sha256: str
    """of the uploaded file"""
    ai_probability: float | None = None
    """null: the detection had no result"""
    verdict: Verdict | None = None
    manipulated: bool | None = None
    thresholds: Thresholds | None = None
    model: ModelInfo | None = None
    detection_id: str
    version: int
    """counts the entries of this detection"""
    decision: Decision
    note: str | None = None
    """null: erased, or none was given"""
    reviewer: str | None = None
    """display name; null: erased, or none was given"""
    key: str | None = None
    """name of the key; null: erased"""
    created_at: AwareDatetime
    erased_at: AwareDatetime | None = None
    """when note and names were erased (`?purge=true`)"""


class ReviewConflict(BaseModel):
    """Problem document of `review_conflict`."""

    type: str
    """URI reference of the problem type"""
    title: str
    status: int
    detail: str
    code: ErrorCode
    """stable, for programs"""
    request_id: str
    detection: str | None = None
    """path of the record, where there is one"""
    retry_after: int | None = None
    """seconds until you should try again, as in `Retry-After`"""
    review: Review | None = None
    """the current decision; null: none, or withdrawn"""


class ReviewEntry(BaseModel):
    """Result for one detection of `POST /v1/reviews`: a review or a problem."""

    detection_id: str
    status: int
    """the HTTP status that this review would have had alone"""
    review: Review | None = None
    problem: Problem | None = None


class ReviewList(BaseModel):
    """Response of `GET /v1/reviews`: a page of reviews, or those of `ids`."""

    reviews: list[Review]
    """newest first; with `ids`: in their order"""
    next: str | None = None
    """path of the next page, if there is one"""
    missing: list[str] = []
    """those of `ids` that have no review"""
    assignments: Annotated[list[Assignment], Field(validate_default=True)] = []
    """with `ids`: who has which of them open"""


class ReviewResults(BaseModel):
    """Response of `POST /v1/reviews`."""

    results: list[ReviewEntry]
    """in the order of `ids`"""


class ReviewState(BaseModel):
    """Response of `GET /v1/detections/{id}/review`."""

    detection_id: str
    review: Review | None = None
    """the current decision; null: none, or withdrawn"""
    history: list[Review]
    """all entries, newest first, with withdrawals"""
    assignment: Assignment | None = None
    """who has the detection open"""


class Provenance(BaseModel):
    """Statements of a file about its origin, and their summary."""

    statements: list[Statement]
    """the C2PA manifest first"""
    summary: ProvenanceSummary
    incomplete: bool = False
    """whether some metadata could not be read: broken or beyond the limits"""


class Detection(BaseModel):
    """The record of one detection, as `GET /v1/detections/{id}` returns it."""

    id: str
    ref_id: str | None = None
    """the caller's own reference"""
    status: Status = "queued"
    queue_position: int | None = None
    """place in the queue, 1 is next; callers take turns, so that it can also grow. Null unless the detection is queued, and in answers to uploads and webhooks"""
    expected_wait: float | None = None
    """estimated time until a worker begins with it, s: its place divided by the current rate of all workers. Null: no position, or no detection has ended since it came"""
    cached: bool = False
    """whether the result is that of an earlier detection of the picture"""
    ai_probability: float | None = None
    """of several frames: the highest of them"""
    verdict: Verdict | None = None
    manipulated: bool | None = None
    """null without masks; of several frames: whether any of them is manipulated"""
    frames: list[FrameInfo] | None = None
    """results of the examined frames, in order, if several were asked for and the file has several. `masks`, `notes` and `view.scale` are of the frame with the highest ai_probability, `view.frame`"""
    not_judged: NotJudged | None = None
    """why a detection that succeeded has no score, verdict and masks. `too_small`: a side is shorter than the model's `min_side` (`GET /v1/model`), and below it scores are guesses. More reasons may be added"""
    notes: list[Note] = []
    """reasons to be careful with the score. `marks_contradict_score`: the verdict is `authentic`, but parts are marked as AI; `mostly_text`: a page of text, which often gets too high a score. More notes may be added"""
    thresholds: Thresholds | None = None
    masks: Masks | None = None
    """null with `view=glance`"""
    image: ImageInfo
    view: ViewInfo
    model: ModelInfo | None = None
    timings: Timings | None = None
    provenance: Provenance | None = None
    """what the file itself says of its origin; it does not affect the score. Null until the file is read, and in records of older releases"""
    created_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    expires_at: AwareDatetime
    error: DetectionError | None = None


class DetectionList(BaseModel):
    """Response of `GET /v1/detections`: a page of the caller's detections, or those of `ids`."""

    detections: list[Detection]
    """newest first; with `ids`: in their order"""
    next: str | None = None
    """path of the next page, if there is one; with conditions a page may be short, or empty, with others to follow"""
    missing: list[str] = []
    """those of `ids` that do not exist or belong to another caller"""


class FinishedEvent(BaseModel):
    """A detection has ended: `succeeded`, `failed` or `expired`."""

    event: Literal["detection.finished"] = "detection.finished"
    id: str
    """id of the message; the same when it is sent again"""
    created_at: AwareDatetime
    detection: Detection


class NextDetection(BaseModel):
    """Response of `POST /v1/reviews/next`; both null: nothing is left to decide."""

    detection: Detection | None = None
    assignment: Assignment | None = None


class BatchEntry(BaseModel):
    """Result of one file of a batch: a detection or a problem."""

    status: int
    """the HTTP status that this file would have had alone"""
    detection: Detection | None = None
    problem: Problem | None = None


class BatchResults(BaseModel):
    """Response of `POST /v1/detections/batch`."""

    results: list[BatchEntry]
    """in the order of the files"""
