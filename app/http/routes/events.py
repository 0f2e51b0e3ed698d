"""`GET /v1/events`: endings of the caller's detections as Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.contract.events import POSITION_PATTERN, Ending, last_position
from app.contract.schemas import DetectionEvent, ErrorCode
from app.http import examples, guard
from app.http.callers import TheCaller
from app.http.problems import OUTAGES, of_outage
from app.http.routes.responses import OF_V1, WAIT, LimitedStream, problems
from app.http.routes.strict import StrictRoute
from app.http.service import Service, service_of
from app.http.waiting import MAX_WAIT, preferred_wait

router = APIRouter(prefix="/v1/events", tags=["detections"], route_class=StrictRoute)

_DATA = DetectionEvent.model_json_schema(ref_template="#/components/schemas/{model}")
_DATA.pop("$defs")  # `Status` is part of the document
_MEDIA_TYPE = "text/event-stream"
_HEARTBEAT = 15.0  # s, between two reads if no message comes; below the timeout of most proxies
_PAUSE = 0.25  # s, at least, between two reads
_RETRY = 1000  # ms, until a client connects again


@router.get(
    "",
    response_class=Response,
    responses={
        200: {
            "description": "A stream of events named `detection`, whose data is JSON",
            "content": {
                _MEDIA_TYPE: {
                    "schema": {  # of an event
                        "type": "object",
                        "properties": {
                            "id": {"type": "string"},
                            "event": {"type": "string", "const": "detection"},
                            "data": {
                                "type": "string",
                                "contentMediaType": "application/json",
                                "contentSchema": _DATA,
                            },
                        },
                    },
                    "example": examples.EVENT,
                }
            },
        },
        **problems(*OF_V1, ErrorCode.MALFORMED_REQUEST, ErrorCode.TOO_MANY_DOWNLOADS),
    },
    openapi_extra=WAIT,
)
async def events(
    request: Request,
    caller: TheCaller,
    last_event_id: Annotated[
        str,
        Header(
            pattern=POSITION_PATTERN, description="`id` of the last event that you have received"
        ),
    ] = "",
) -> Response:
    """Follow the ends of your detections, as Server-Sent Events.

    Without `Last-Event-ID` the stream begins with the next end. With it, it begins with the first
    one after that event; about 1,000 are kept until the detections expire. The first message has
    no data, only the id to resume at. The service closes a stream after 60 s, after the seconds of
    `Prefer: wait`, or when it stops: connect again with `Last-Event-ID`, as browsers do by
    themselves.
    """
    service = service_of(request)
    start = last_event_id
    if not start:
        start = await run_in_threadpool(last_position, service.store.redis, caller.name)
    wait = preferred_wait(request.headers.getlist("prefer"))
    seconds = MAX_WAIT if wait is None else wait
    permit = service.resources.streams.hold(caller.name, 1)
    content = _events(service, caller.name, start, seconds)
    return LimitedStream(content, permit, _MEDIA_TYPE, {"X-Accel-Buffering": "no"})


async def _events(
    service: Service, owner: str, position: str, seconds: float
) -> AsyncIterator[str]:
    """Events and heartbeats for so many seconds, without blocking a thread."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    yield f"id: {position}\nretry: {_RETRY}\n\n"  # to resume here, even if no event comes
    while True:
        ending = service.events.next_ending  # before the read, so that none is missed
        guard.begin()  # a new budget for each read
        try:
            (found,) = await service.endings([(owner, position)])
        except OUTAGES as error:
            of_outage(error)
            return
        for one in found:
            yield _format(one)
            position = one.position
        left = deadline - loop.time()
        if left <= 0 or service.events.stopping:
            return
        if found:
            await asyncio.sleep(min(_PAUSE, left))
            continue
        yield ": waiting\n\n"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_HEARTBEAT, left)):
                await ending.wait()
                await asyncio.sleep(_PAUSE)


def _format(ending: Ending) -> str:
    data = DetectionEvent(id=ending.detection_id, status=ending.status).model_dump_json()
    return f"id: {ending.position}\nevent: detection\ndata: {data}\n\n"
