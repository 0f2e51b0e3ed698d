"""`/v1/detections/{id}/report.html`: everything about a detection on one page."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from app.contract.reviews import Review
from app.contract.schemas import Detection, ErrorCode, Head, Status, detection_path
from app.http.callers import TheCaller
from app.http.notice import notice
from app.http.problems import ServiceError
from app.http.report import POLICY, Images, document
from app.http.reviewing import reviewing_of
from app.http.routes.pictures import (
    Download,
    decoders_for,
    mask_bytes,
    refusing,
    stored,
    stored_mask,
)
from app.http.routes.responses import NO_STORE, OF_V1, DetectionId, problems
from app.http.routes.strict import StrictRoute
from app.http.service import Service, service_of
from pictures import overlays

router = APIRouter(tags=["reviews"], route_class=StrictRoute)

_SIDE = 1024  # pixels of the embedded pictures


@router.get(
    "/v1/detections/{detection_id}/report.html",
    response_class=HTMLResponse,
    responses={
        status.HTTP_200_OK: {
            "description": "The report, self-contained",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        **problems(
            *OF_V1,
            ErrorCode.MALFORMED_REQUEST,
            ErrorCode.NOT_FOUND,
            ErrorCode.DETECTION_UNFINISHED,
            ErrorCode.TOO_MANY_DOWNLOADS,
            ErrorCode.STORAGE_UNAVAILABLE,
            ErrorCode.REVIEWS_UNAVAILABLE,
        ),
    },
)
async def report(request: Request, detection_id: DetectionId, caller: TheCaller) -> Response:
    """Return a report of a finished detection, to send or print.

    It contains the picture, both layers, regions, score, thresholds, model, provenance, times and
    all decisions. Without a stored picture it has no images.
    """
    service = service_of(request)
    detection = await run_in_threadpool(service.record, detection_id, caller.name)
    if not detection.status.finished:
        raise ServiceError(
            ErrorCode.DETECTION_UNFINISHED,
            f"The detection is {detection.status}.",
            detection=detection_path(detection_id),
        )
    history = await reviewing_of(request).reviews.history(caller.name, detection_id)
    image, resources = detection.image, service.resources
    return Download(
        HTMLResponse.media_type,
        {
            **NO_STORE,
            "Content-Security-Policy": POLICY,
            "Content-Disposition": f'inline; filename="{detection_id}.html"',
        },
        resources.downloads.hold(caller.name, image.bytes + 2 * mask_bytes(image)),
        lambda: _made(service, detection, history),
        decoders_for(image),
        resources.renderings.hold(caller.name, 1),
    )


def _made(service: Service, detection: Detection, history: list[Review]) -> bytes:
    images, limits = _images(service, detection), _notice(service, detection)
    return document(detection, history, images, limits, datetime.now(UTC))


def _images(service: Service, detection: Detection) -> Images:
    """The pictures to embed; none if the picture is not stored, or cannot be decoded."""
    try:
        picture = stored(service, detection.id)
        with refusing():
            preview = service.decoders.preview(picture, _SIDE, detection.view.frame or 1)
        layers = {}
        for head in Head if detection.masks is not None else ():
            with refusing():
                mask = service.decoders.shrink(stored_mask(service, detection.id, head), _SIDE)
            layers[head] = overlays.render(mask)
    except ServiceError as error:
        if error.code is ErrorCode.DETECTION_EXPIRED or detection.status is Status.FAILED:
            return Images(None, {})
        raise
    return Images(preview, layers)


def _notice(service: Service, detection: Detection) -> str | None:
    """What is known about the model of the detection, if a worker has it."""
    for worker in service.store.workers.live():
        if worker.model == detection.model:
            return notice(trained=worker.trained, measured=worker.measured)
    return None
