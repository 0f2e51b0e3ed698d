"""`/v1/detections`: read, list and delete records."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool

from app.contract.records import CURSOR_PATTERN
from app.contract.schemas import Detection, DetectionList, ErrorCode
from app.http import examples
from app.http.callers import TheCaller
from app.http.listing import MAX_NAMED, NO_FILTER, TheFilter, named, newest
from app.http.problems import ServiceError
from app.http.reviewing import reviewing_of
from app.http.routes.responses import (
    CONDITION,
    OF_V1,
    UNCHANGED,
    WAIT,
    DetectionId,
    answer,
    problems,
    record_answer,
)
from app.http.routes.strict import StrictRoute
from app.http.service import Service, service_of
from app.http.waiting import preferred_wait

router = APIRouter(prefix="/v1/detections", tags=["detections"], route_class=StrictRoute)

_PROBLEMS = problems(
    *OF_V1, ErrorCode.MALFORMED_REQUEST, ErrorCode.NOT_FOUND, ErrorCode.TOO_MANY_UPLOADS
)


@router.get(
    "",
    response_model=DetectionList,
    responses={
        200: answer("The detections", "ETag", page=examples.PAGE, named=examples.NAMED),
        **UNCHANGED,
        **problems(*OF_V1, ErrorCode.MALFORMED_REQUEST),
    },
    openapi_extra=CONDITION,
)
def read_list(
    request: Request,
    caller: TheCaller,
    ids: Annotated[
        list[str] | None,
        Query(description="only these detections, at most 100: `a,b,c`, or repeated"),
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=MAX_NAMED, description="maximum number of detections")
    ] = 50,
    cursor: Annotated[
        str | None, Query(pattern=CURSOR_PATTERN, description="from `next` of the previous page")
    ] = None,
    chosen: TheFilter = NO_FILTER,
) -> Response:
    """List your detections, newest first, in pages; or return those in `ids`.

    New detections do not shift the following pages. With conditions other than times a page may be
    short, or empty, with others to follow.
    """
    service = service_of(request)
    if ids is not None:
        if len(request.query_params.keys()) > 1:
            raise ServiceError(
                ErrorCode.MALFORMED_REQUEST, "`ids` cannot be combined with other parameters."
            )
        return record_answer(request, _named(service, caller.name, ids))
    page = newest(service.store, caller.name, limit, cursor, chosen)
    following = None
    if page.cursor is not None:
        query = {**request.query_params, "limit": limit, "cursor": page.cursor}
        following = f"{router.prefix}?{urlencode(query)}"
    listed = DetectionList(detections=service.in_queue(page.detections), next=following)
    return record_answer(request, listed)


def _named(service: Service, owner: str, ids: list[str]) -> DetectionList:
    names = named(ids)
    found = dict(zip(names, service.store.get_owned(names, owner), strict=True))
    existing = [detection for detection in found.values() if detection is not None]
    return DetectionList(
        detections=service.in_queue(existing),
        missing=[name for name, detection in found.items() if detection is None],
    )


@router.get(
    "/{detection_id}",
    response_model=Detection,
    responses={
        200: answer(
            "The current record",
            "ETag",
            "Preference-Applied",
            "Server-Timing",
            queued=examples.QUEUED.model_copy(update={"queue_position": 12, "expected_wait": 4.0}),
            processing=examples.PROCESSING,
            succeeded=examples.SUCCEEDED,
            animation=examples.ANIMATION,
            failed=examples.FAILED,
            expired=examples.EXPIRED,
        ),
        **UNCHANGED,
        **_PROBLEMS,
    },
    openapi_extra={"parameters": [*CONDITION["parameters"], *WAIT["parameters"]]},
)
async def read(request: Request, detection_id: DetectionId, caller: TheCaller) -> Response:
    """Return the record of a detection, at once or when it has ended (`Prefer: wait`)."""
    service = service_of(request)
    detection = await run_in_threadpool(service.record, detection_id, caller.name)
    wait = preferred_wait(request.headers.getlist("prefer"))
    headers = {} if wait is None else {"Preference-Applied": f"wait={wait}"}
    if wait and not detection.status.finished:
        async with service.resources.connections.hold(caller.name, 1):
            waited = await service.wait([detection], caller.name, wait, request.is_disconnected)
        final = waited[detection.id]
        if isinstance(final, ServiceError):
            raise final
        detection = final
    (detection,) = await run_in_threadpool(service.in_queue, [detection])
    return record_answer(request, detection, headers)


@router.delete(
    "/{detection_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    response_description="Deleted",
    responses=problems(
        *OF_V1,
        ErrorCode.MALFORMED_REQUEST,
        ErrorCode.NOT_FOUND,
        ErrorCode.STORAGE_UNAVAILABLE,
        ErrorCode.REVIEWS_UNAVAILABLE,
    ),
)
async def delete(
    request: Request,
    detection_id: DetectionId,
    caller: TheCaller,
    purge: Annotated[
        bool,
        Query(
            description="also erase notes and names in its reviews, even if the detection itself "
            "is gone; decisions and the hash of the picture stay"
        ),
    ] = False,
) -> None:
    """Delete a detection: record, picture and masks. A waiting one is not computed."""
    erased = purge and await reviewing_of(request).reviews.erase(caller.name, [detection_id])
    try:
        await run_in_threadpool(service_of(request).delete, detection_id, caller.name)
    except ServiceError as error:
        if not (erased and error.code is ErrorCode.NOT_FOUND):
            raise
