"""What the OpenAPI entries of several routes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import BaseModel

from app.contract.schemas import Detection, ErrorCode
from app.http import examples
from app.http.openapi import PROBLEM, headers
from app.http.problems import MEDIA_TYPE, STATUS, link_context

Answers = dict[int | str, dict[str, Any]]
"""OpenAPI entries by HTTP status, as FastAPI takes them."""

NO_STORE = {"Cache-Control": "no-store"}
"""Header fields of records: they change, and only their owner may see them."""

DetectionId = Annotated[str, Path(max_length=64, examples=[examples.QUEUED.id])]

OF_V1 = (
    ErrorCode.ORIGIN_REFUSED,
    ErrorCode.KEY_MISSING,
    ErrorCode.KEY_INVALID,
    ErrorCode.REDIS_UNAVAILABLE,
    ErrorCode.INTERNAL_ERROR,
)
"""Refusals that every route under `/v1` can give."""

_HEADERS = {  # of refusals, by HTTP status
    401: ("WWW-Authenticate",),
    409: ("Retry-After", "Location"),
    410: ("Location",),
    422: ("Location",),
    429: ("Retry-After",),
    500: ("Location",),
    503: ("Retry-After",),
}


def problems(*codes: ErrorCode) -> Answers:
    """Entries of the refusals a route can give, with an example of each."""
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
    """The entry of an answer in JSON, with an example of each body by its name."""
    shown = {
        name: examples.shown(name.replace("_", " "), body, exclude_none=body is examples.ALIVE)
        for name, body in bodies.items()
    }
    return {
        "description": description,
        "headers": headers(*header_names),
        "content": {"application/json": {"examples": shown}},
    }


def json_answer(
    request: Request,
    body: BaseModel,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A record or several, with a status and header fields beside those of every record."""
    fields = NO_STORE | (_server_timing(body) if isinstance(body, Detection) else {})
    return Response(
        body.model_dump_json(context=link_context(request)),
        status,
        {**fields, **(headers or {})},
        "application/json",
    )


def _server_timing(detection: Detection) -> dict[str, str]:
    """The record's timings as W3C Server Timing, for browsers' tools and proxies' logs."""
    if detection.timings is None:
        return {}
    parts = detection.timings.model_dump().items()
    return {"Server-Timing": ", ".join(f"{name};dur={1000 * s:.1f}" for name, s in parts)}
