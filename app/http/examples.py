"""Example responses for the OpenAPI document."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from app.contract.details import DETAILS
from app.contract.models import Measured, MeasuredRow, ModelFacts
from app.contract.reviews import (
    Assignment,
    AssignmentList,
    Decision,
    Facts,
    NextDetection,
    Review,
    ReviewEntry,
    ReviewList,
    ReviewResults,
    ReviewState,
)
from app.contract.schemas import (
    BatchEntry,
    BatchResults,
    Deletions,
    Detection,
    DetectionError,
    DetectionList,
    ErrorCode,
    FrameInfo,
    Head,
    ImageInfo,
    MaskInfo,
    Masks,
    ModelInfo,
    Problem,
    ServiceStatus,
    Status,
    Timings,
    Usage,
    ViewInfo,
    detection_path,
    mask_path,
    overlay_path,
)
from app.http.notice import notice
from app.http.pictures import inspect
from app.http.problems import ServiceError, describe
from pictures.decoders import ABORTED
from pictures.errors import DecodingAbortedError, TruncatedPictureError, UndecodablePictureError
from pictures.findings import Region, Thresholds, Verdict, View
from pictures.origin import Confidence, Provenance, ProvenanceSummary, Says, Source, Statement

_ID = "2ab9aef0810946318aef48d20bccd202"
_REQUEST_ID = "0f5c2a7d9e3b4c61a8d7e6f5b4c3d2e1"
_CREATED = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
_THRESHOLDS = Thresholds(uncertain=0.35, ai_generated=0.65, mask=0.5, manipulated_area=0.01)


def _bitmap(width: int, height: int) -> bytes:
    """The header of a BMP."""
    return b"BM" + bytes(12) + struct.pack("<3I", 40, width, height)


def _refusals(*uploads: bytes) -> dict[ErrorCode, str]:
    """Why files are refused, in the words of the service."""
    found = {}
    for upload in uploads:
        try:
            inspect(upload, 64_000_000)
        except ServiceError as error:
            found[error.code] = error.detail
    return found


_DETAILS = {
    **DETAILS,
    ErrorCode.TOO_MANY_CONNECTIONS: "1000 connections are open.",
    ErrorCode.HEAD_TOO_LARGE: "The limit for a request's head is 65536 bytes.",
    ErrorCode.RATE_LIMITED: "Your limit is 600/minute pictures.",
    ErrorCode.MALFORMED_REQUEST: "`view` must be one of auto, tiled, center, glance.",
    ErrorCode.FILE_MISSING: "The form has no file part named `file`.",
    ErrorCode.UPLOAD_TOO_LARGE: "The limit is 52428800 bytes for an upload.",
    **dict.fromkeys(
        (ErrorCode.TOO_MANY_UPLOADS, ErrorCode.TOO_MANY_DOWNLOADS),
        "Your share is in use: 50000000 more bytes do not fit at the moment.",
    ),
    **_refusals(
        b"no image",
        b"%PDF-2.0",
        b"IIRO",  # a camera's raw picture
        _bitmap(12_000, 9_000),
        _bitmap(6_000, 100),
    ),
    ErrorCode.IMAGE_TRUNCATED: TruncatedPictureError(
        "the file ends too early: image file is truncated"
    ).detail,
    ErrorCode.IMAGE_UNDECODABLE: UndecodablePictureError(
        "the picture cannot be decoded: broken data stream when reading image file"
    ).detail,
    ErrorCode.DECODING_ABORTED: DecodingAbortedError(ABORTED).detail,
    ErrorCode.VIEW_REFUSED: "gamma 1 has no prior for the view `glance`; use another view.",
    ErrorCode.METHOD_NOT_ALLOWED: "PUT /v1/detections",
    ErrorCode.DETECTION_UNFINISHED: "The detection is processing.",
    ErrorCode.NO_MASKS: "The view `glance` gives no masks; use another view.",
    ErrorCode.WEBHOOK_REFUSED: "Plain http is not allowed; use https.",
    ErrorCode.ASSIGNMENT_TAKEN: "Ben has it open until 12:05:00 UTC.",
    ErrorCode.FETCH_REFUSED: "www.example.com resolves to an address that is not public.",
    ErrorCode.FETCH_FAILED: "The picture could not be fetched: the answer has status 404.",
    ErrorCode.QUEUE_SHARE_FULL: "5000 of your detections wait, which is your share of the queue.",
    ErrorCode.QUEUE_FULL: "10000 detections are waiting, the oldest for 412 s.",
    ErrorCode.QUEUE_SLOW: "The oldest of your 8112 waiting detections has waited 1834 s.",
}
_OF_A_DETECTION = {
    ErrorCode.ASSIGNMENT_TAKEN,
    ErrorCode.REVIEW_CONFLICT,
    ErrorCode.DETECTION_UNFINISHED,
    ErrorCode.DETECTION_FAILED,
    ErrorCode.DETECTION_EXPIRED,
    ErrorCode.NO_MASKS,
    ErrorCode.VIEW_REFUSED,
    ErrorCode.IMAGE_TRUNCATED,
    ErrorCode.IMAGE_UNDECODABLE,
    ErrorCode.PROCESSING_FAILED,
    ErrorCode.MODEL_OUTPUT_INVALID,
    ErrorCode.QUEUE_TIMEOUT,
}


def problem(code: ErrorCode) -> Problem:
    """Example problem document of this code."""
    path = detection_path(_ID) if code in _OF_A_DETECTION else None
    return describe(ServiceError(code, _DETAILS[code], detection=path), _REQUEST_ID)


def _mask(head: Head, area: float, peak: float, regions: list[Region]) -> MaskInfo:
    urls = {"mask_url": mask_path(_ID, head), "overlay_url": overlay_path(_ID, head)}
    return MaskInfo(area_fraction=area, max=peak, regions=regions, **urls)


QUEUED = Detection(
    id=_ID,
    ref_id="upload-8812",
    image=ImageInfo(
        width=1600,
        height=1200,
        format="JPEG",
        bytes=412_803,
        sha256="3ea868e14eef7f1e737891341f37e12053eaa183354f1907a3f6053b936eb034",
        frames=1,
    ),
    view=ViewInfo(mode=View.AUTO),
    created_at=_CREATED,
    expires_at=_CREATED + timedelta(days=1),
)
PROCESSING = QUEUED.model_copy(update={"status": Status.PROCESSING})
SUCCEEDED = QUEUED.model_copy(
    update={
        "status": Status.SUCCEEDED,
        "ai_probability": 0.93,
        "verdict": Verdict.AI_GENERATED,
        "manipulated": True,
        "thresholds": _THRESHOLDS,
        "masks": Masks(
            ai=_mask(Head.AI, 0.71, 0.98, [Region(box=(0, 96, 1600, 852), area=0.7, score=0.91)]),
            manipulation=_mask(
                Head.MANIPULATION,
                0.06,
                0.88,
                [Region(box=(402, 310, 380, 305), area=0.06, score=0.8)],
            ),
        ),
        "view": ViewInfo(mode=View.AUTO, tiles=12, glances=1, frame=1, scale=1.0),
        "model": ModelInfo(name="gamma", version="1", digest="b2eac525d4c33f22"),
        "provenance": Provenance(
            statements=[
                Statement(
                    source=Source.EXIF,
                    says=Says.CAPTURED,
                    by="Canon EOS R5",
                    confidence=Confidence.UNSIGNED,
                    details={
                        "make": "Canon",
                        "model": "Canon EOS R5",
                        "taken_at": "2026:01:30 09:12:44",
                    },
                )
            ],
            summary=ProvenanceSummary(
                says=Says.CAPTURED,
                by="Canon EOS R5",
                confidence=Confidence.UNSIGNED,
                text="Unsigned metadata says that the picture was taken with a camera. Anyone can "
                "write or change such metadata. Name in it: “Canon EOS R5”.",
            ),
        ),
        "timings": Timings(queued=0.013, decode=0.021, forward=0.412, encode=0.034, total=0.48),
        "finished_at": _CREATED + timedelta(seconds=0.48),
    }
)
ANIMATION = SUCCEEDED.model_copy(
    update={
        "image": SUCCEEDED.image.model_copy(update={"format": "GIF", "frames": 48}),
        "view": ViewInfo(mode=View.AUTO, frames=3, tiles=12, glances=3, frame=24, scale=0.64),
        "frames": [
            FrameInfo(
                frame=frame, time_ms=time, ai_probability=score, verdict=verdict, manipulated=marks
            )
            for frame, time, score, verdict, marks in (
                (1, 0, 0.08, Verdict.AUTHENTIC, False),
                (24, 1150, 0.93, Verdict.AI_GENERATED, True),
                (48, 2350, 0.11, Verdict.AUTHENTIC, False),
            )
        ],
        "provenance": None,
    }
)
FAILED = QUEUED.model_copy(
    update={
        "status": Status.FAILED,
        "finished_at": _CREATED + timedelta(seconds=0.05),
        "error": DetectionError(
            code=ErrorCode.IMAGE_TRUNCATED, detail=_DETAILS[ErrorCode.IMAGE_TRUNCATED]
        ),
    }
)
EXPIRED = QUEUED.model_copy(
    update={
        "status": Status.EXPIRED,
        "error": DetectionError(
            code=ErrorCode.QUEUE_TIMEOUT, detail=_DETAILS[ErrorCode.QUEUE_TIMEOUT]
        ),
    }
)
PAGE = DetectionList(
    detections=[SUCCEEDED], next=f"/v1/detections?limit=1&cursor=1769860800000000{_ID}"
)
NAMED = DetectionList(detections=[SUCCEEDED], missing=["00000000000000000000000000000000"])
BATCH = BatchResults(
    results=[
        BatchEntry(status=202, detection=QUEUED),
        BatchEntry(status=415, problem=problem(ErrorCode.NOT_AN_IMAGE)),
    ]
)
_MEASURED = Measured(
    conditions="pictures of generators that it never saw, as JPEG",
    photographs=1000,
    false_alarms=0.02,
    false_alarms_interval=(0.013, 0.031),
    rows=[
        MeasuredRow(
            pictures="all generators",
            n=1000,
            auc=0.9,
            auc_interval=(0.88, 0.92),
            tpr_at_fpr_1=0.4,
            tpr_at_fpr_5=0.6,
        )
    ],
)
MODEL = ModelFacts(
    name="gamma",
    version="1",
    digest="b2eac525d4c33f22",
    trained=True,
    backbone="mit_b2",
    parameters=27_500_000,
    crop_size=512,
    min_side=64,
    thresholds=_THRESHOLDS,
    notice=notice(trained=True, measured=_MEASURED),
    measured=_MEASURED,
)
_DECIDED = _CREATED + timedelta(minutes=2)
REVIEW = Review(
    **Facts.of(SUCCEEDED).__dict__,
    detection_id=_ID,
    version=1,
    decision=Decision.AI,
    note="Six fingers.",
    reviewer="Anna",
    key="anna",
    created_at=_DECIDED,
)
_WITHDRAWAL = REVIEW.model_copy(
    update={
        "version": 2,
        "decision": Decision.WITHDRAWN,
        "note": None,
        "created_at": _DECIDED + timedelta(minutes=1),
    }
)
ASSIGNMENT = Assignment(
    detection_id=_ID, reviewer="Anna", key="anna", expires_at=_DECIDED + timedelta(minutes=5)
)
REVIEW_STATE = ReviewState(detection_id=_ID, review=REVIEW, history=[REVIEW], assignment=None)
WITHDRAWN = ReviewState(
    detection_id=_ID, review=None, history=[_WITHDRAWAL, REVIEW], assignment=None
)
REVIEW_PAGE = ReviewList(reviews=[REVIEW], next="/v1/reviews?limit=1&cursor=1769860920000000-7")
NAMED_REVIEWS = ReviewList(
    reviews=[REVIEW], missing=["00000000000000000000000000000000"], assignments=[]
)
REVIEW_RESULTS = ReviewResults(
    results=[
        ReviewEntry(detection_id=_ID, status=201, review=REVIEW),
        ReviewEntry(
            detection_id="00000000000000000000000000000000",
            status=404,
            problem=problem(ErrorCode.NOT_FOUND),
        ),
    ]
)
NEXT = NextDetection(detection=SUCCEEDED, assignment=ASSIGNMENT)
NOTHING_LEFT = NextDetection()
ASSIGNED = AssignmentList(assignments=[ASSIGNMENT])
ALIVE = ServiceStatus()
USAGE = Usage(
    caller="newsroom",
    waiting=12,
    oldest_wait=3,
    kept_bytes=73_400_320,
    reserved_bytes=18_972_672,
    uploads_left=588,
    rate_limit="600/minute",
    queue_limit=2000,
    storage_limit=524_288_000,
    weight=3,
)
READY = ServiceStatus(workers=2, suspended=False)


def shown(summary: str, body: BaseModel, *, exclude_none: bool = False) -> dict[str, Any]:
    """An entry of an OpenAPI `examples` object."""
    return {"summary": summary, "value": body.model_dump(mode="json", exclude_none=exclude_none)}


EVENT = f'id: 1769860800480-0\nevent: detection\ndata: {{"id":"{_ID}","status":"succeeded"}}\n\n'
DELETIONS = Deletions(dry_run=False, deleted=[_ID], more=False)
