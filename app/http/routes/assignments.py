"""Assignments: open a detection for review, and get the next one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool

from app.contract.reviews import Assignment, AssignmentList, Name, NextDetection
from app.contract.schemas import ErrorCode, detection_path
from app.http import examples
from app.http.callers import TheCaller
from app.http.problems import ServiceError
from app.http.reviewing import reviewing_of
from app.http.routes.responses import OF_V1, DetectionId, answer, json_answer, problems
from app.http.routes.strict import StrictRoute
from app.http.service import service_of
from app.reviews.assignments import TakenError
from app.reviews.reviewer import Reviewer

router = APIRouter(tags=["reviews"], route_class=StrictRoute)

_PROBLEMS = (*OF_V1, ErrorCode.MALFORMED_REQUEST, ErrorCode.REVIEWS_UNAVAILABLE)
_ONE = "/v1/detections/{detection_id}/assignment"
ReviewerName = Annotated[
    Name, Query(description="display name; people with one key are told apart by it")
]


@router.post(
    "/v1/reviews/next",
    response_model=NextDetection,
    responses={
        200: answer(
            "The detection, now assigned to you; null: nothing is left",
            next=examples.NEXT,
            nothing_left=examples.NOTHING_LEFT,
        ),
        **problems(*_PROBLEMS, ErrorCode.NOT_FOUND),
    },
)
async def take_next(
    request: Request,
    caller: TheCaller,
    reviewer: ReviewerName = "",
    after: Annotated[
        str | None,
        Query(max_length=64, description="skip this detection and those before it"),
    ] = None,
) -> Response:
    """Open the oldest detection that has no decision and that nobody else has open.

    It is assigned to you for `GAMMA_REVIEW_LOCK` seconds, or until it has a decision. You get the
    one that you have open again; `after` skips it.
    """
    service = service_of(request)
    last = None
    if after is not None:
        last = await run_in_threadpool(service.record, after, caller.name)
    person = Reviewer(caller.name, caller.key, reviewer)
    found = await reviewing_of(request).next(service.store, person, last)
    if found is None:
        return json_answer(request, NextDetection())
    detection, assignment = found
    return json_answer(request, NextDetection(detection=detection, assignment=assignment))


@router.get(
    "/v1/reviews/assigned",
    response_model=AssignmentList,
    responses={200: answer("The assignments", assigned=examples.ASSIGNED), **problems(*_PROBLEMS)},
)
async def list_assigned(
    request: Request,
    caller: TheCaller,
    reviewer: ReviewerName = "",
    team: Annotated[bool, Query(description="what anybody of your team has open")] = False,
) -> Response:
    """List the detections that you, or all people of your team, have open."""
    assignments = reviewing_of(request).assignments
    person = Reviewer(caller.name, caller.key, reviewer)
    held = await (assignments.of_team(caller.name) if team else assignments.held_by(person))
    names = [one.detection_id for one in held]
    found = await run_in_threadpool(service_of(request).store.get_owned, names, caller.name)
    kept = [one for one, detection in zip(held, found, strict=True) if detection]  # not deleted
    return json_answer(request, AssignmentList(assignments=kept))


@router.put(
    _ONE,
    response_model=Assignment,
    responses={
        200: answer("Assigned to you", assigned=examples.ASSIGNMENT),
        **problems(*_PROBLEMS, ErrorCode.NOT_FOUND, ErrorCode.ASSIGNMENT_TAKEN),
    },
)
async def take(
    request: Request,
    detection_id: DetectionId,
    caller: TheCaller,
    reviewer: ReviewerName = "",
    takeover: Annotated[bool, Query(description="also if somebody else has it open")] = False,
) -> Response:
    """Open a detection for review, or keep it open; others do not get it as their next one."""
    await run_in_threadpool(service_of(request).record, detection_id, caller.name)
    person = Reviewer(caller.name, caller.key, reviewer)
    try:
        assignment = await reviewing_of(request).assignments.take(
            person, detection_id, takeover=takeover
        )
    except TakenError as error:
        other = error.assignment
        raise ServiceError(
            ErrorCode.ASSIGNMENT_TAKEN,
            f"{other.reviewer or other.key} has it open until {other.expires_at:%H:%M:%S} UTC.",
            detection=detection_path(detection_id),
        ) from None
    return json_answer(request, assignment)


@router.delete(
    _ONE,
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    response_description="Released",
    responses=problems(*_PROBLEMS, ErrorCode.NOT_FOUND),
)
async def release(
    request: Request, detection_id: DetectionId, caller: TheCaller, reviewer: ReviewerName = ""
) -> None:
    """Close a detection without a decision; an assignment of somebody else stays."""
    await run_in_threadpool(service_of(request).record, detection_id, caller.name)
    person = Reviewer(caller.name, caller.key, reviewer)
    await reviewing_of(request).assignments.release(person, detection_id)
