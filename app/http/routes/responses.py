"""Responses and OpenAPI entries shared by the routes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from app.contract.schemas import ID_PATTERN, Detection, ErrorCode
from app.http import examples
from app.http.openapi import PROBLEM, headers
from app.http.problems import MEDIA_TYPE, STATUS, link_context

Answers = dict[int | str, dict[str, Any]]
"""OpenAPI entries by HTTP status, in FastAPI's format."""

NO_STORE = {"Cache-Control": "no-store"}
"""Header fields of records, which change and are private to their owner."""

DetectionId = Annotated[str, Path(max_length=64, pattern=ID_PATTERN, examples=[examples.QUEUED.id])]

OF_V1 = (
    ErrorCode.ORIGIN_REFUSED,
    ErrorCode.KEY_MISSING,
    ErrorCode.KEY_INVALID,
    ErrorCode.REDIS_UNAVAILABLE,
    ErrorCode.INTERNAL_ERROR,
)
"""Problems of all routes under `/v1`."""

_HEADERS = {  # of problems, by HTTP status
    401: ("WWW-Authenticate",),
    409: ("Retry-After", "Location"),
    410: ("Location",),
    412: ("ETag", "Location"),
    422: ("Location",),
    429: ("Retry-After",),
    500: ("Location",),
    503: ("Retry-After",),
}


def problems(*codes: ErrorCode) -> Answers:
    """OpenAPI entries of problems, with an example for each code."""
    entries: Answers = {}
    for code in dict.fromkeys(codes):
        http_status, title = STATUS[code]
        new = {
            "description": "",
            "headers": headers(*_HEADERS.get(http_status, ())),
            "content": {MEDIA_TYPE: {"schema": PROBLEM, "examples": {}}},
        }
        entry = entries.setdefault(http_status, new)
        entry["description"] += f"{', ' if entry['description'] else ''}`{code}`"
        shown = examples.shown(title, examples.problem(code), exclude_none=True)
        entry["content"][MEDIA_TYPE]["examples"][code.value] = shown
    return entries


def answer(description: str, *header_names: str, **bodies: BaseModel) -> dict[str, Any]:
    """OpenAPI entry of a JSON response; `bodies` are examples by name."""
    shown = {
        name: examples.shown(name.replace("_", " "), body, exclude_none=body is examples.ALIVE)
        for name, body in bodies.items()
    }
    return {
        "description": description,
        "headers": headers(*header_names),
        "content": {"application/json": {"examples": shown}},
    }


_PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string", "examples": ["wait=30"]},
    "description": "`wait=N`: hold the answer until the result is there, at most N seconds "
    "(N ≤ 60; RFC 7240)",
}
WAIT = {"parameters": [_PREFER]}
"""OpenAPI entry of the request header field `Prefer`."""

CONDITION = {
    "parameters": [
        {
            "name": "If-None-Match",
            "in": "header",
            "schema": {"type": "string"},
            "description": "the `ETag` of an earlier answer",
        }
    ]
}
"""OpenAPI entry of the request header field `If-None-Match`."""


UNCHANGED: Answers = {
    304: {
        "description": "Not modified: `If-None-Match` matches",
        "headers": headers("ETag", "Cache-Control"),
    }
}
"""OpenAPI entry of status 304."""


def is_known(request: Request, tag: str) -> bool:
    """Whether `If-None-Match` names this `ETag`; compares weakly (RFC 9110, 13.1.2)."""
    given = ",".join(request.headers.getlist("if-none-match")).split(",")
    wanted = (tag.removeprefix("W/"), "*")
    return any(one.strip().removeprefix("W/") in wanted for one in given)


def record_answer(
    request: Request, body: BaseModel, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON response with an `ETag`; 304 if the client has this body.

    The tag is weak, because the bytes also depend on the compression.
    """
    answer = json_answer(request, body, headers=headers)
    tag = f'W/"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
    if is_known(request, tag):
        return Response(status_code=304, headers={**NO_STORE, "ETag": tag})
    answer.headers["ETag"] = tag
    return answer


def json_answer(
    request: Request,
    body: BaseModel,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """JSON response with the header fields of records."""
    fields = NO_STORE | (_server_timing(body) if isinstance(body, Detection) else {})
    return Response(
        body.model_dump_json(context=link_context(request)),
        status,
        {**fields, **(headers or {})},
        "application/json",
    )


def _server_timing(detection: Detection) -> dict[str, str]:
    """The record's timings as a `Server-Timing` header field."""
    if detection.timings is None:
        return {}
    parts = detection.timings.model_dump().items()
    return {"Server-Timing": ", ".join(f"{name};dur={1000 * s:.1f}" for name, s in parts)}


class LimitedStream(StreamingResponse):
    """A body that is sent while it is made, and holds a permit meanwhile."""

    def __init__(
        self,
        content: AsyncIterator[str] | AsyncIterator[bytes],
        permit: AbstractAsyncContextManager[object],
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        """Create the response.

        Args:
            content: the body in pieces.
            permit: held until the body is sent.
            media_type: media type of the body.
            headers: header fields, beside those of records.
        """
        super().__init__(content, headers={**NO_STORE, **headers}, media_type=media_type)
        self._permit = permit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._permit:
            await super().__call__(scope, receive, send)


def attachment(name: str) -> dict[str, str]:
    """Header field of a body that browsers save as a file of this name."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}
