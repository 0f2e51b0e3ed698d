"""`/v1/reviews` and `/v1/detections/{id}/review`: decide, list and export."""

from __future__ import annotations

import hashlib
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool

from app.contract.reviews import (
    MAX_IDS,
    BulkReview,
    Decision,
    Facts,
    Name,
    NewReview,
    Review,
    ReviewConflict,
    ReviewEntry,
    ReviewList,
    ReviewResults,
    ReviewState,
)
from app.contract.schemas import Detection, ErrorCode, detection_path
from app.http import examples
from app.http.callers import Caller, TheCaller
from app.http.listing import named
from app.http.moments import Moment
from app.http.problems import ReviewConflictError, ServiceError, document
from app.http.reviewing import Reviewing, reviewing_of
from app.http.routes.responses import (
    OF_V1,
    Answers,
    DetectionId,
    LimitedStream,
    answer,
    attachment,
    json_answer,
    problems,
)
from app.http.routes.strict import StrictRoute
from app.http.service import service_of
from app.reviews import export
from app.reviews.reviewer import Reviewer
from app.reviews.store import ConflictError, Filter, Seen, current

router = APIRouter(tags=["reviews"], route_class=StrictRoute)

_OF_REVIEWS = (*OF_V1, ErrorCode.MALFORMED_REQUEST, ErrorCode.REVIEWS_UNAVAILABLE)
_ONE = "/v1/detections/{detection_id}/review"
_ALL = "/v1/reviews"
_PAGE = 50  # reviews
_CONDITIONS = {
    "parameters": [
        {
            "name": "If-Match",
            "in": "header",
            "schema": {"type": "string"},
            "description": "the `ETag` of the reviews that you saw; refused if they have changed",
        },
        {
            "name": "If-None-Match",
            "in": "header",
            "schema": {"type": "string"},
            "description": "`*`: refused if there is a decision already",
        },
    ]
}


class Format(StrEnum):
    """Formats of a list."""

    JSON = "json"
    CSV = "csv"
    JSONL = "jsonl"


_MEDIA_TYPES = {Format.CSV: "text/csv", Format.JSONL: "application/jsonl"}


TheName = Annotated[Name, Query(description="display name of the person")]


def _conflicts() -> Answers:
    """OpenAPI entry of `review_conflict`, whose problem has the current review."""
    entries = problems(ErrorCode.REVIEW_CONFLICT)
    (entry,) = entries.values()
    (content,) = entry["content"].values()
    content["schema"] = {"$ref": f"#/components/schemas/{ReviewConflict.__name__}"}
    return entries


def _listed() -> dict[str, Any]:
    """OpenAPI entry of a list, in all formats."""
    entry = answer("The reviews", page=examples.REVIEW_PAGE, named=examples.NAMED_REVIEWS)
    entry["content"].update(
        {name: {"schema": {"type": "string"}} for name in _MEDIA_TYPES.values()}
    )
    return entry


@router.get(
    _ONE,
    response_model=ReviewState,
    responses={
        200: answer("The decision and its history", "ETag", reviewed=examples.REVIEW_STATE),
        **problems(*_OF_REVIEWS, ErrorCode.NOT_FOUND),
    },
)
async def read_review(request: Request, detection_id: DetectionId, caller: TheCaller) -> Response:
    """Return the current decision about a detection, and all before it.

    They outlive the picture and the record.
    """
    history = await reviewing_of(request).reviews.history(caller.name, detection_id)
    return await _state(request, detection_id, caller, history)


@router.post(
    _ONE,
    response_model=Review,
    status_code=status.HTTP_201_CREATED,
    responses={
        200: {
            "model": Review,
            **answer("This is the current decision already", "ETag", known=examples.REVIEW),
        },
        201: answer("Decided", "ETag", decided=examples.REVIEW),
        **problems(*_OF_REVIEWS, ErrorCode.NOT_FOUND, ErrorCode.DETECTION_UNFINISHED),
        **problems(ErrorCode.UPLOAD_TOO_LARGE),
        **_conflicts(),
    },
    openapi_extra=_CONDITIONS,
)
async def review(
    request: Request, detection_id: DetectionId, body: NewReview, caller: TheCaller
) -> Response:
    """Decide about a finished detection.

    Earlier decisions stay in the history. Sending the same decision again changes nothing.
    """
    facts = _facts(await _record(request, detection_id, caller))
    reviewer = Reviewer(caller.name, caller.key, body.reviewer)
    try:
        results = await reviewing_of(request).reviews.append(
            reviewer, {detection_id: facts}, body, _seen(request, detection_id)
        )
    except ConflictError as error:
        raise _conflict(error, detection_id) from None
    result = results[detection_id]
    if result.review is None:
        raise ServiceError(ErrorCode.NOT_FOUND)
    code = status.HTTP_201_CREATED if result.new else status.HTTP_200_OK
    return json_answer(request, result.review, code, {"ETag": _tag(detection_id, result.review)})


@router.delete(
    _ONE,
    response_model=ReviewState,
    responses={
        200: answer("Withdrawn", "ETag", withdrawn=examples.WITHDRAWN),
        **problems(*_OF_REVIEWS, ErrorCode.NOT_FOUND),
        **_conflicts(),
    },
    openapi_extra=_CONDITIONS,
)
async def withdraw_review(
    request: Request, detection_id: DetectionId, caller: TheCaller, reviewer: TheName = ""
) -> Response:
    """Withdraw the current decision about a detection, if there is one; the history stays."""
    try:
        history = await reviewing_of(request).withdraw(
            Reviewer(caller.name, caller.key, reviewer), detection_id, _seen(request, detection_id)
        )
    except ConflictError as error:
        raise _conflict(error, detection_id) from None
    return await _state(request, detection_id, caller, history)


@router.get(
    _ALL,
    response_model=ReviewList,
    responses={
        200: _listed(),
        **problems(*_OF_REVIEWS, ErrorCode.TOO_MANY_DOWNLOADS),
    },
)
async def list_reviews(
    request: Request,
    caller: TheCaller,
    ids: Annotated[
        list[str] | None,
        Query(description=f"of these detections, at most {MAX_IDS}: `a,b,c`, or repeated"),
    ] = None,
    since: Annotated[
        Moment | None, Query(description="decided at this time or later, with a time zone")
    ] = None,
    decision: Annotated[Decision | None, Query(description="with this decision")] = None,
    history: Annotated[
        bool, Query(description="also replaced and withdrawn decisions, and withdrawals")
    ] = False,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            le=MAX_IDS,
            description=f"maximum number of reviews; absent: {_PAGE}, in a file all",
        ),
    ] = None,
    cursor: Annotated[
        str | None, Query(pattern=export.CURSOR, description="from `next` of the previous page")
    ] = None,
    format: Annotated[
        Format, Query(description="`csv` and `jsonl` (a review in each line): a file")
    ] = Format.JSON,
) -> Response:
    """List the reviews of your team, newest first, in pages; or return those of `ids`."""
    reviewing = reviewing_of(request)
    if ids is not None:
        if request.query_params.keys() - {"ids"}:
            raise _malformed("`ids` cannot be combined with other parameters.")
        return json_answer(request, await _named(reviewing, caller.name, ids))
    before = None if cursor is None else export.place(cursor)
    chosen = Filter(since, decision, history, before)
    if format is not Format.JSON:
        permit = service_of(request).resources.streams.hold(caller.name, 1)
        return await _download(reviewing, caller.name, chosen, limit, format, permit)
    limit = limit or _PAGE
    rows = await reviewing.reviews.page(caller.name, chosen, limit + 1)
    following = None
    if len(rows) > limit:
        given = {**request.query_params, "cursor": export.cursor(rows[limit - 1])}
        following = f"{_ALL}?{urlencode(given)}"
    page = ReviewList(reviews=[row.review for row in rows[:limit]], next=following)
    return json_answer(request, page)


@router.post(
    _ALL,
    status_code=status.HTTP_207_MULTI_STATUS,
    response_model=ReviewResults,
    responses={
        207: answer("A result for each detection", bulk=examples.REVIEW_RESULTS),
        **problems(*_OF_REVIEWS, ErrorCode.UPLOAD_TOO_LARGE),
    },
)
async def review_several(request: Request, body: BulkReview, caller: TheCaller) -> Response:
    """Decide the same about several detections; each is reviewed or refused on its own."""
    names = list(dict.fromkeys(body.ids))
    found = await run_in_threadpool(service_of(request).store.get_owned, names, caller.name)
    facts: dict[str, Facts | None] = {}
    refused: dict[str, ServiceError] = {}
    for name, detection in zip(names, found, strict=True):
        try:
            facts[name] = _facts(detection)
        except ServiceError as error:
            refused[name] = error
    reviewer = Reviewer(caller.name, caller.key, body.reviewer)
    results = await reviewing_of(request).reviews.append(reviewer, facts, body)
    entries = []
    for name in names:
        result = results.get(name)
        if result is not None and result.review is not None:
            code = status.HTTP_201_CREATED if result.new else status.HTTP_200_OK
            entries.append(ReviewEntry(detection_id=name, status=code, review=result.review))
        else:
            problem = document(request, refused.get(name, ServiceError(ErrorCode.NOT_FOUND)))
            entries.append(ReviewEntry(detection_id=name, status=problem.status, problem=problem))
    return json_answer(request, ReviewResults(results=entries), status.HTTP_207_MULTI_STATUS)


async def _record(request: Request, detection_id: str, caller: Caller) -> Detection | None:
    store = service_of(request).store
    (detection,) = await run_in_threadpool(store.get_owned, [detection_id], caller.name)
    return detection


def _facts(detection: Detection | None) -> Facts | None:
    """What a record says; None without one.

    Raises:
        ServiceError: If the detection is not finished: `detection_unfinished`.
    """
    if detection is None:
        return None
    if not detection.status.finished:
        raise ServiceError(
            ErrorCode.DETECTION_UNFINISHED,
            f"The detection is {detection.status}.",
            detection=detection_path(detection.id),
        )
    return Facts.of(detection)


async def _state(
    request: Request, detection_id: str, caller: Caller, history: list[Review]
) -> Response:
    """The reviews of a detection.

    Raises:
        ServiceError: If the caller has neither reviews nor a record of it: `not_found`.
    """
    if not history and await _record(request, detection_id, caller) is None:
        raise ServiceError(ErrorCode.NOT_FOUND)
    assignments = await reviewing_of(request).assignments.of(caller.name, [detection_id])
    newest = history[0] if history else None
    state = ReviewState(
        detection_id=detection_id,
        review=current(newest),
        history=history,
        assignment=assignments[0] if assignments else None,
    )
    return json_answer(request, state, headers={"ETag": _tag(detection_id, newest)})


async def _named(reviewing: Reviewing, team: str, ids: list[str]) -> ReviewList:
    names = named(ids)
    found = await reviewing.reviews.current(team, names)
    return ReviewList(
        reviews=[found[name] for name in names if name in found],
        missing=[name for name in names if name not in found],
        assignments=await reviewing.assignments.of(team, names),
    )


async def _download(
    reviewing: Reviewing,
    team: str,
    chosen: Filter,
    limit: int | None,
    form: Format,
    permit: AbstractAsyncContextManager[object],
) -> Response:
    """Reviews as a file, sent while they are read."""
    pages = export.pages(reviewing.reviews, team, chosen, limit)
    first = await anext(pages)  # an error of the database is a problem, not a broken file
    written = export.as_csv if form is Format.CSV else export.as_jsonl
    name = attachment(f"reviews.{form}")
    return LimitedStream(written(first, pages), permit, _MEDIA_TYPES[form], name)


def _tag(detection_id: str, newest: Review | None) -> str:
    """`ETag` of the reviews of a detection, which changes with each entry."""
    version = None if newest is None else (newest.version, newest.erased_at)
    return f'"{hashlib.sha256(f"{detection_id} {version}".encode()).hexdigest()[:32]}"'


def _seen(request: Request, detection_id: str) -> Seen:
    """The conditions of a request, see RFC 9110, section 13.

    `If-Match` is compared weakly too: proxies that compress answers make their `ETag` weak.
    """
    match, none = (
        [tag.strip().removeprefix("W/") for tag in ",".join(given).split(",") if tag.strip()]
        for given in map(request.headers.getlist, ("if-match", "if-none-match"))
    )

    def met(newest: Review | None) -> bool:
        exists, tag = current(newest) is not None, _tag(detection_id, newest)
        if match and not (tag in match or (exists and "*" in match)):
            return False
        return not (none and (tag in none or (exists and "*" in none)))

    return met


def _conflict(error: ConflictError, detection_id: str) -> ServiceError:
    newest = error.newest
    tag = _tag(detection_id, newest)
    return ReviewConflictError(current(newest), tag, detection_path(detection_id))


def _malformed(detail: str) -> ServiceError:
    return ServiceError(ErrorCode.MALFORMED_REQUEST, detail)
