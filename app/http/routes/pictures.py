"""`/v1/detections/{id}/…`: the stored picture, its masks and heat maps.

These files never change, so clients may cache them until the detection expires, and
`If-None-Match` is answered from the record alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.contract.schemas import Detection, ErrorCode, Head, ImageInfo, Status, detection_path
from app.http.callers import TheCaller
from app.http.openapi import headers
from app.http.pictures import refusal
from app.http.problems import ServiceError
from app.http.resources import Permit
from app.http.routes.responses import (
    CONDITION,
    OF_V1,
    UNCHANGED,
    Answers,
    DetectionId,
    is_known,
    problems,
)
from app.http.routes.strict import StrictRoute
from app.http.service import DECODERS, Service, service_of
from pictures import overlays
from pictures.errors import PictureError
from pictures.header import MEDIA_TYPES
from pictures.overlays import DEFAULT_OPACITY, Colormap

router = APIRouter(
    prefix="/v1/detections/{detection_id}", tags=["pictures"], route_class=StrictRoute
)

# Limits memory: each decodes one picture, with up to 16 bytes per pixel for some formats.
_DECODERS, _LARGE_DECODERS = CapacityLimiter(DECODERS), CapacityLimiter(1)
_LARGE = 16_000_000  # pixels
_Permit = AbstractAsyncContextManager[Permit]
_Slot = AbstractAsyncContextManager[object]
_NO_SLOT: _Slot = contextlib.nullcontext()
_PNG = "image/png"
_PIECE = 256 * 1024  # bytes
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Vary": "Authorization",  # a browser may cache responses for several keys
}
_MASK_PROBLEMS = (
    *OF_V1,
    ErrorCode.MALFORMED_REQUEST,
    ErrorCode.NOT_FOUND,
    ErrorCode.DETECTION_UNFINISHED,
    ErrorCode.DETECTION_FAILED,
    ErrorCode.DETECTION_EXPIRED,
    ErrorCode.NO_MASKS,
    ErrorCode.QUEUE_TIMEOUT,
    ErrorCode.TOO_MANY_DOWNLOADS,
    ErrorCode.STORAGE_UNAVAILABLE,
)
MaskSize = Annotated[
    int | None,
    Query(
        ge=16,
        le=8192,
        description="maximum number of pixels per side; probabilities are averaged over areas. "
        "Absent: the size of the picture",
    ),
]


def _answers(*media_types: str) -> Answers:
    """OpenAPI entries of a file and of status 304."""
    body = {"schema": {"type": "string", "format": "binary"}}
    fields = headers("ETag", "Cache-Control")
    return {
        status.HTTP_200_OK: {
            "description": "The file",
            "headers": fields,
            "content": {media_type: body for media_type in media_types},
        },
        **UNCHANGED,
    }


@router.get(
    "/image",
    response_class=Response,
    responses={
        **_answers(*MEDIA_TYPES.values()),
        **problems(
            *OF_V1,
            ErrorCode.MALFORMED_REQUEST,
            ErrorCode.NOT_FOUND,
            ErrorCode.DETECTION_EXPIRED,
            ErrorCode.TOO_MANY_DOWNLOADS,
            ErrorCode.STORAGE_UNAVAILABLE,
            ErrorCode.IMAGE_TRUNCATED,
            ErrorCode.IMAGE_UNDECODABLE,
            ErrorCode.DECODING_ABORTED,
        ),
    },
    openapi_extra=CONDITION,
)
async def image(
    request: Request,
    detection_id: DetectionId,
    caller: TheCaller,
    size: Annotated[
        int | None,
        Query(
            ge=16,
            le=8192,
            description="return a JPEG of the upright picture, as the model sees it, with at "
            "most this many pixels per side; absent: return the uploaded file",
        ),
    ] = None,
    frame: Annotated[
        int | None,
        Query(
            ge=1,
            description="with `size`: which of `frames` to return; absent: `view.frame`, or the "
            "first while the detection is unfinished",
        ),
    ] = None,
) -> Response:
    """Return the picture as uploaded, or as a JPEG of limited size."""
    service = service_of(request)
    detection = await run_in_threadpool(service.record, detection_id, caller.name)
    info, shown = detection.image, _frame(detection, frame)
    answer = _Answer(request, detection, info.sha256, size, shown)
    if frame is None and detection.view.frames > 1 and not detection.status.finished:
        answer.headers["Cache-Control"] = "no-store"  # the frame to show is not known yet
    if size is None:
        media_type = MEDIA_TYPES[info.format]
        suffix = media_type.rpartition("/")[2]
        answer.headers["Content-Disposition"] = f'inline; filename="{detection_id}.{suffix}"'
        memory = service.resources.downloads.hold(caller.name, info.bytes)
        return answer.response(media_type, memory, lambda: stored(service, detection_id))

    def preview() -> bytes:
        picture = stored(service, detection_id)
        with refusing():
            return service.decoders.preview(picture, size, shown)

    memory = service.resources.downloads.hold(caller.name, info.bytes)
    slot = service.resources.renderings.hold(caller.name, 1)
    return answer.response(MEDIA_TYPES["JPEG"], memory, preview, decoders_for(info), slot)


def _frame(detection: Detection, wanted: int | None) -> int:
    """Number of the frame to show.

    Raises:
        ServiceError: If it was not examined: `not_found`.
    """
    decisive = detection.view.frame or 1
    examined = {decisive, *(one.frame for one in detection.frames or ())}
    if wanted is not None and wanted not in examined:
        raise ServiceError(
            ErrorCode.NOT_FOUND, f"Frame {wanted} is not one of the examined frames."
        )
    return wanted or decisive


@router.get(
    "/masks/{head}.png",
    response_class=Response,
    responses={**_answers(_PNG), **problems(*_MASK_PROBLEMS)},
    openapi_extra=CONDITION,
)
async def mask(
    request: Request,
    detection_id: DetectionId,
    head: Head,
    caller: TheCaller,
    size: MaskSize = None,
) -> Response:
    """Return a mask: 8-bit grey, size of the picture, 255 is a probability of 1."""
    service = service_of(request)
    detection = await run_in_threadpool(_succeeded, service, detection_id, caller.name)
    answer = _Answer(request, detection, "mask", head, size)
    return answer.response(_PNG, *mask_work(service, caller.name, detection, head, size))


@router.get(
    "/overlays/{head}.png",
    response_class=Response,
    responses={
        **_answers(_PNG),
        **problems(
            *_MASK_PROBLEMS,
            ErrorCode.IMAGE_TRUNCATED,
            ErrorCode.IMAGE_UNDECODABLE,
            ErrorCode.DECODING_ABORTED,
        ),
    },
    openapi_extra=CONDITION,
)
async def overlay(
    request: Request,
    detection_id: DetectionId,
    head: Head,
    caller: TheCaller,
    opacity: Annotated[
        float,
        Query(
            ge=0,
            le=1,
            description="opacity of a pixel with probability 1; it scales with the probability",
        ),
    ] = DEFAULT_OPACITY,
    colormap: Annotated[Colormap, Query(description="colour map")] = Colormap.HEAT,
    composite: Annotated[
        bool,
        Query(description="blend with the upright picture instead of a transparent background"),
    ] = False,
    size: MaskSize = None,
) -> Response:
    """Return a mask as a heat map, transparent or blended with the picture."""
    service = service_of(request)
    detection = await run_in_threadpool(_succeeded, service, detection_id, caller.name)
    answer = _Answer(
        request, detection, overlays.RENDERER, head, f"{opacity:.3f}", colormap, composite, size
    )
    work = mask_work(service, caller.name, detection, head, size)
    memory, mask_png = work[:2]
    if not composite:
        return answer.response(
            _PNG, memory, lambda: overlays.render(mask_png(), colormap, opacity), *work[2:]
        )

    def blended() -> bytes:
        picture, heat = stored(service, detection_id), stored_mask(service, detection_id, head)
        with refusing():
            return overlays.composite(
                service.decoders,
                picture,
                heat,
                colormap,
                opacity,
                side=size,
                frame=detection.view.frame or 1,
            )

    slot = service.resources.renderings.hold(caller.name, 1)
    return answer.response(_PNG, memory, blended, decoders_for(detection.image), slot)


def mask_work(
    service: Service, owner: str, detection: Detection, head: Head, size: int | None
) -> tuple[_Permit, Callable[[], bytes], CapacityLimiter | None, _Slot]:
    """How to make a mask that fits into `size` pixels: memory, function, limiter and slot."""
    image = detection.image
    memory = service.resources.downloads.hold(owner, mask_bytes(image))
    if size is None or size >= max(image.width, image.height):
        return memory, lambda: stored_mask(service, detection.id, head), None, _NO_SLOT

    def shrunk() -> bytes:
        whole = stored_mask(service, detection.id, head)
        with refusing():
            return service.decoders.shrink(whole, size)

    return memory, shrunk, decoders_for(image), service.resources.renderings.hold(owner, 1)


def mask_bytes(image: ImageInfo) -> int:
    """Approximate maximum size of a compressed mask in bytes."""
    return image.width * image.height // 4


def decoders_for(image: ImageInfo) -> CapacityLimiter:
    """The limiter of threads that decode this picture."""
    return _LARGE_DECODERS if image.width * image.height > _LARGE else _DECODERS


class _Answer:
    """A cacheable file of a detection.

    The `ETag` is a digest of the detection id and all parameters. Pictures and masks are never
    replaced, so it is a strong validator and needs no rendering.
    """

    def __init__(self, request: Request, detection: Detection, *made_of: object) -> None:
        facts = "\n".join(map(str, (detection.id, *made_of)))
        tag = f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'
        left = max(0, int(detection.expires_at.timestamp() - time.time()))
        self.headers = {
            **_HEADERS,
            "ETag": tag,
            "Cache-Control": f"private, max-age={left}, immutable",
        }
        self._known = left > 0 and is_known(request, tag)

    def response(
        self,
        media_type: str,
        memory: _Permit,
        body: Callable[[], bytes],
        limiter: CapacityLimiter | None = None,
        slot: _Slot = _NO_SLOT,
    ) -> Response:
        """Create the response; 304 if the client has the file.

        Args:
            media_type: media type of the body.
            memory: memory for the body, held until it is sent.
            body: creates the body, in a thread.
            limiter: limits the number of such threads.
            slot: acquired before the body is created, so that callers share the threads.
        """
        if self._known:
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=self.headers)
        return Download(media_type, self.headers, memory, body, limiter, slot)


class Download(Response):
    """A body that is sent in pieces, so that slow clients do not make the server copy all of it."""

    def __init__(
        self,
        media_type: str,
        headers: dict[str, str],
        memory: _Permit,
        body: Callable[[], bytes],
        limiter: CapacityLimiter | None,
        slot: _Slot,
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        self._memory = memory
        self._make = body
        self._limiter = limiter
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make the body and send it."""
        async with self._memory as permit:
            async with self._slot:
                body = await run_sync(self._make, limiter=self._limiter)
            await permit.grow(len(body))
            self.headers["Content-Length"] = str(len(body))
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            for at in range(0, len(body), _PIECE):
                await send(
                    {
                        "type": "http.response.body",
                        "body": body[at : at + _PIECE],
                        "more_body": at + _PIECE < len(body),
                    }
                )


def _succeeded(service: Service, detection_id: str, owner: str) -> Detection:
    """Get the record of a detection that has masks.

    Raises:
        ServiceError: If there are none: `not_found`, `detection_unfinished`, `detection_failed`,
            `detection_expired`, `queue_timeout` or `no_masks`.
    """
    detection = service.record(detection_id, owner)
    path = detection_path(detection_id)
    if not detection.status.finished:
        raise ServiceError(
            ErrorCode.DETECTION_UNFINISHED, f"The detection is {detection.status}.", detection=path
        )
    if detection.status is Status.FAILED:
        raise ServiceError(ErrorCode.DETECTION_FAILED, detection=path)
    if detection.error is not None:  # expired, in the queue or after it
        raise ServiceError(detection.error.code, detection.error.detail, detection=path)
    if detection.masks is None:
        why = f"The view `{detection.view.mode}` gives no masks; use another view."
        if detection.not_judged is not None:
            why = f"The picture was not judged: {detection.not_judged}."
        raise ServiceError(ErrorCode.NO_MASKS, why, detection=path)
    return detection


def stored(service: Service, detection_id: str) -> bytes:
    """The uploaded file.

    Raises:
        ServiceError: If it is not stored any more: `detection_expired`.
    """
    data = service.store.get_image(detection_id)
    if data is None:
        raise _expired(detection_id)
    return data


def stored_mask(service: Service, detection_id: str, head: Head) -> bytes:
    """The mask of a head, as PNG.

    Raises:
        ServiceError: If it is not stored any more: `detection_expired`.
    """
    data = service.store.get_mask(detection_id, head)
    if data is None:
        raise _expired(detection_id)
    return data


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Convert errors of a picture to `ServiceError`."""
    try:
        yield
    except PictureError as error:
        raise refusal(error) from None


def _expired(detection_id: str) -> ServiceError:
    return ServiceError(ErrorCode.DETECTION_EXPIRED, detection=detection_path(detection_id))
