"""`/v1/detections`: submit a picture, read its record, fetch its masks."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from app import overlays
from app.pictures import MEDIA_TYPES
from app.problems import MEDIA_TYPE, STATUS, ServiceError
from app.schemas import Detection, ErrorCode, Head, Problem, Status, View, detection_path
from app.service import Service, TheService
from app.uploads import Upload, read_upload
from app.waiting import CHECK_INTERVAL, preferred_wait

router = APIRouter(prefix="/v1/detections", tags=["detections"])

DetectionId = Annotated[str, Path(max_length=64)]

_MAX_REF_ID = 200  # characters
_UPLOAD_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "the picture"},
        "view": {"type": "string", "enum": [view.value for view in View]},
        "ref_id": {"type": "string", "maxLength": _MAX_REF_ID, "description": "your reference"},
    },
}


def _problems(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries of the refusals a route can give."""
    entries: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        http_status, _ = STATUS[code]
        entry = entries.setdefault(http_status, {"model": Problem, "description": ""})
        entry["description"] += f"{', ' if entry['description'] else ''}`{code}`"
        entry["content"] = {MEDIA_TYPE: {}}
    return entries


_MASK_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}},
    **_problems(
        ErrorCode.NOT_FOUND,
        ErrorCode.DETECTION_UNFINISHED,
        ErrorCode.DETECTION_FAILED,
        ErrorCode.DETECTION_EXPIRED,
    ),
}


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=Detection,
    responses={
        200: {"model": Detection, "description": "Finished within the time of `Prefer: wait`"},
        **_problems(
            ErrorCode.MALFORMED_REQUEST,
            ErrorCode.FILE_MISSING,
            ErrorCode.FILE_EMPTY,
            ErrorCode.UPLOAD_TOO_LARGE,
            ErrorCode.TOO_MANY_PIXELS,
            ErrorCode.NOT_AN_IMAGE,
            ErrorCode.FORMAT_UNSUPPORTED,
            ErrorCode.IMAGE_TRUNCATED,
            ErrorCode.IMAGE_UNDECODABLE,
            ErrorCode.PROCESSING_FAILED,
            ErrorCode.QUEUE_FULL,
            ErrorCode.STORAGE_FULL,
            ErrorCode.REDIS_UNAVAILABLE,
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": _UPLOAD_FORM}},
        },
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "schema": {"type": "string", "examples": ["wait=30"]},
                "description": "`wait=N`: hold the answer until the result is there, at most N "
                "seconds (N ≤ 60; RFC 7240)",
            }
        ],
    },
)
async def create(request: Request, service: TheService) -> Response:
    """Submit one picture."""
    await run_in_threadpool(service.admit)
    upload = await read_upload(request, int(service.settings.max_upload))
    view, ref_id = _fields(upload, service)
    detection = await run_in_threadpool(service.submit, upload.data, view, ref_id)
    del upload  # the wait must not hold the picture
    request.state.detection_id = detection.id
    wait = preferred_wait(request.headers.getlist("prefer"))
    headers = {"Location": detection_path(detection.id)}
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
        detection = await _wait(service, detection, wait)
    if detection.error is not None:
        raise ServiceError(
            detection.error.code, detection.error.detail, detection=detection_path(detection.id)
        )
    finished = detection.status is Status.SUCCEEDED
    return JSONResponse(
        detection.model_dump(mode="json"),
        status.HTTP_200_OK if finished else status.HTTP_202_ACCEPTED,
        headers,
    )


def _fields(upload: Upload, service: Service) -> tuple[View, str | None]:
    """The form's text fields, checked."""
    given = upload.fields.get("view", service.settings.default_view)
    ref_id = upload.fields.get("ref_id")
    if given not in list(View):
        raise ServiceError(ErrorCode.MALFORMED_REQUEST, f"`view` must be one of {', '.join(View)}.")
    if ref_id is not None and not 0 < len(ref_id) <= _MAX_REF_ID:
        raise ServiceError(
            ErrorCode.MALFORMED_REQUEST, f"`ref_id` must have 1 to {_MAX_REF_ID} characters."
        )
    return View(given), ref_id


async def _wait(service: Service, detection: Detection, seconds: float) -> Detection:
    """The record once it is final, or as it is after `seconds`."""
    deadline = time.monotonic() + seconds
    with service.events.expect(detection.id) as finished:
        while True:
            # The record is read after the event is armed, so that nothing falls between.
            detection = await run_in_threadpool(service.record, detection.id)
            left = deadline - time.monotonic()
            if detection.status.finished or left <= 0:
                return detection
            try:
                await asyncio.wait_for(finished.wait(), min(left, CHECK_INTERVAL))
            except TimeoutError:
                continue


@router.get("/{detection_id}", response_model=Detection, responses=_problems(ErrorCode.NOT_FOUND))
def read(detection_id: DetectionId, service: TheService) -> Detection:
    """The record."""
    return service.record(detection_id)


@router.get(
    "/{detection_id}/image",
    response_class=Response,
    responses={
        200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}},
        **_problems(ErrorCode.NOT_FOUND, ErrorCode.DETECTION_EXPIRED),
    },
)
def image(detection_id: DetectionId, service: TheService) -> Response:
    """The picture as it was uploaded."""
    detection = service.record(detection_id)
    data = service.store.get_image(detection_id)
    if data is None:
        raise _expired(detection_id)
    return _immutable(data, MEDIA_TYPES[detection.image.format])


@router.get(
    "/{detection_id}/masks/{head}.png",
    response_class=Response,
    responses=_MASK_ANSWERS,
)
def mask(detection_id: DetectionId, head: Head, service: TheService) -> Response:
    """Probability map: 8-bit grey, picture size, 255 = 1."""
    return _immutable(_mask(service, detection_id, head), "image/png")


@router.get(
    "/{detection_id}/overlays/{head}.png",
    response_class=Response,
    responses=_MASK_ANSWERS,
)
def overlay(detection_id: DetectionId, head: Head, service: TheService) -> Response:
    """Heat map to lay over the picture: RGBA, picture size."""
    return _immutable(overlays.render(_mask(service, detection_id, head)), "image/png")


def _mask(service: Service, detection_id: str, head: Head) -> bytes:
    detection = service.record(detection_id)
    path = detection_path(detection_id)
    if not detection.status.finished:
        raise ServiceError(
            ErrorCode.DETECTION_UNFINISHED, f"It is {detection.status}.", detection=path
        )
    if detection.status is Status.FAILED:
        raise ServiceError(
            ErrorCode.DETECTION_FAILED, "It failed; the record says why.", detection=path
        )
    data = service.store.get_mask(detection_id, head)
    if data is None:
        raise _expired(detection_id)
    return data


def _expired(detection_id: str) -> ServiceError:
    return ServiceError(
        ErrorCode.DETECTION_EXPIRED,
        "Picture and masks are no longer kept.",
        detection=detection_path(detection_id),
    )


def _immutable(data: bytes, media_type: str) -> Response:
    """An answer that never changes while it exists; only the caller's own cache may keep it."""
    return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})
