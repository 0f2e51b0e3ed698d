"""`/v1/webhooks`: log of attempts, replay and test events."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request, status
from pydantic import BaseModel, ConfigDict, Field

from app.contract.schemas import ErrorCode
from app.http import examples
from app.http.callers import TheCaller
from app.http.problems import ServiceError
from app.http.routes.responses import OF_V1, answer, problems
from app.http.routes.strict import StrictRoute
from app.http.service import service_of
from app.webhooks.attempts import Attempt, AttemptLog, Outcome
from app.webhooks.events import FinishedEvent, TestEvent
from app.webhooks.queue import TEST_INTERVAL, Deliveries, webhook_of

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=StrictRoute)
events = APIRouter(generate_unique_id_function=lambda route: route.name)
"""Requests that the service sends, for the OpenAPI document."""

_MAX_IDS = 100
_COMMON = problems(*OF_V1, ErrorCode.MALFORMED_REQUEST)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Attempts(BaseModel):
    """Attempts to deliver your webhooks, newest first."""

    attempts: list[Attempt]


class Replay(_Body):
    """Finished detections whose message is to be sent again."""

    ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=_MAX_IDS)]


class Skipped(StrEnum):
    """Why a message is not sent again."""

    NOT_FOUND = "not_found"
    NO_WEBHOOK = "no_webhook"
    UNFINISHED = "unfinished"
    UNDER_WAY = "under_way"


class Replayed(BaseModel):
    """What happens to each detection."""

    replayed: list[str] = Field(description="their messages are sent again, with all retries")
    skipped: dict[str, Skipped] = Field(description="reasons by id")


class Test(_Body):
    """Receiver of a test event."""

    url: str | None = Field(None, max_length=2048, description="absent: your default URL")


class Tested(BaseModel):
    """The test event that will be sent."""

    id: str = Field(description="id of the message; its attempt will be in the log")


_ATTEMPTS = Attempts(
    attempts=[
        Attempt(
            id=f"msg_{examples.SUCCEEDED.id}",
            detection_id=examples.SUCCEEDED.id,
            host="hooks.example.com",
            tried_at=examples.SUCCEEDED.created_at,
            number=1,
            outcome=Outcome.RETRIED,
            status=503,
            reason="HTTP 503",
            seconds=0.21,
        )
    ]
)
_REPLAYED = Replayed(
    replayed=[examples.SUCCEEDED.id], skipped={examples.QUEUED.id: Skipped.UNFINISHED}
)


@router.get("/attempts", responses={200: answer("The attempts", attempts=_ATTEMPTS), **_COMMON})
def attempts(
    request: Request,
    caller: TheCaller,
    detection_id: Annotated[
        str | None, Query(max_length=64, description="only those of this detection")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="maximum number of attempts")] = 100,
) -> Attempts:
    """Return the latest attempts to deliver your webhooks.

    The log holds about 1,000 attempts, for seven days after the last one.
    """
    log = AttemptLog(service_of(request).store.redis)
    return Attempts(attempts=log.latest(caller.name, limit, detection_id))


@router.post(
    "/replay",
    responses={
        200: answer("What is sent again", replayed=_REPLAYED),
        **_COMMON,
        **problems(ErrorCode.UPLOAD_TOO_LARGE, ErrorCode.WEBHOOK_REFUSED),
    },
)
def replay(request: Request, caller: TheCaller, body: Replay) -> Replayed:
    """Send the messages of finished detections again."""
    service, deliveries = service_of(request), _deliveries(request)
    ids = list(dict.fromkeys(body.ids))
    result = Replayed(replayed=[], skipped={})
    for name, detection in zip(ids, service.store.get_owned(ids, caller.name), strict=True):
        webhook = webhook_of(service.store.redis, name)
        if detection is None:
            result.skipped[name] = Skipped.NOT_FOUND
        elif webhook is None:
            result.skipped[name] = Skipped.NO_WEBHOOK
        elif not detection.status.finished:
            result.skipped[name] = Skipped.UNFINISHED
        elif deliveries.replay(webhook):
            result.replayed.append(name)
        else:
            result.skipped[name] = Skipped.UNDER_WAY
    return result


@router.post(
    "/test",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        202: answer("The test event", queued=Tested(id=f"msg_{examples.QUEUED.id}")),
        **_COMMON,
        **problems(ErrorCode.UPLOAD_TOO_LARGE, ErrorCode.WEBHOOK_REFUSED, ErrorCode.RATE_LIMITED),
    },
)
def test(request: Request, caller: TheCaller, body: Test) -> Tested:
    """Send a test event once, to a URL or to your default URL."""
    deliveries = _deliveries(request)
    url = service_of(request).webhook_url(body.url, caller.name)
    if url is None:
        raise ServiceError(ErrorCode.WEBHOOK_REFUSED, "You have no default URL.")
    message = deliveries.test(caller.name, url)
    if message is None:
        raise ServiceError(
            ErrorCode.RATE_LIMITED, f"One test in {TEST_INTERVAL} s.", retry_after=TEST_INTERVAL
        )
    return Tested(id=message)


def _deliveries(request: Request) -> Deliveries:
    """The queue of deliveries.

    Raises:
        ServiceError: If webhooks are off: `webhook_refused`.
    """
    deliveries = service_of(request).deliveries
    if deliveries is None:
        raise ServiceError(ErrorCode.WEBHOOK_REFUSED, "Webhooks are off.")
    return deliveries


@events.post("detection.finished", status_code=204)
def detection_finished(body: FinishedEvent) -> None:
    """A detection has ended.

    Answer 2xx within ten seconds.
    """


@events.post("webhook.test", status_code=204)
def webhook_test(body: TestEvent) -> None:
    """A test event that you requested.

    Answer 2xx within ten seconds.
    """
