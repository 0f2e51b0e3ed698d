"""The OpenAPI document: what FastAPI reads off the routes, and what it cannot know.

gamma openapi > docs/openapi.json
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.http.problems import MEDIA_TYPE

PROBLEM = {"$ref": "#/components/schemas/Problem"}

_EVERYWHERE = ("X-Request-ID", "traceresponse")
_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-ID": (
        "Names the request in answers and log lines: the one you sent, if it is 1 to 64 letters, "
        "digits, `.`, `_`, `-`; else a new one.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ),
    "traceresponse": (
        "The W3C trace that the request belongs to: that of your `traceparent`, or a new one.",
        {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    ),
    "Location": ("Path of the record.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": (
        "Seconds until it is worth asking again.",
        {"type": "integer", "minimum": 1},
    ),
    "RateLimit-Policy": (
        "Your limit: `q` pictures in `w` seconds. Only if there is one.",
        {"type": "string", "examples": ['"uploads";q=600;w=60']},
    ),
    "RateLimit": (
        "Where you stand: `r` pictures may come now, all of them again in `t` seconds.",
        {"type": "string", "examples": ['"uploads";r=599;t=1']},
    ),
    "Preference-Applied": (
        "The wait that was granted, in seconds; only if one was asked for.",
        {"type": "string", "pattern": "^wait=[0-9]{1,2}$"},
    ),
    "Server-Timing": (
        "Where the detection's time went, in ms (W3C Server Timing): the record's `timings`; only "
        "once it is finished.",
        {"type": "string", "examples": ["queued;dur=13.0, forward;dur=412.0, total;dur=480.0"]},
    ),
    "ETag": (
        "Names the body; sent back as `If-None-Match`, it spares sending the body again.",
        {"type": "string", "pattern": '^"[0-9a-f]{32}"$'},
    ),
    "Cache-Control": ("How long it may be kept, by whom.", {"type": "string"}),
    "Content-Disposition": ("Its name, if it is saved.", {"type": "string"}),
    "WWW-Authenticate": ("`Bearer`.", {"type": "string"}),
}


def headers(*names: str) -> dict[str, dict[str, str]]:
    """Header fields of an answer, described in one place."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


class Documented(FastAPI):
    """FastAPI with a document that says no more and no less than the service does."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            _correct(super().openapi())
        return super().openapi()


def _correct(document: dict[str, Any]) -> None:
    """Name the header fields and drop FastAPI's own validation errors: ours are 400 problems."""
    components = document["components"]
    components["headers"] = {
        name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()
    }
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if MEDIA_TYPE not in answers.get("422", {}).get("content", {MEDIA_TYPE: {}}):
                del answers["422"]
            for entry in answers.values():
                entry["headers"] = {**headers(*_EVERYWHERE), **entry.get("headers", {})}
            operation["responses"] = dict(sorted(answers.items()))
