"""The OpenAPI document: FastAPI's, plus header fields, minus its validation errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.contract.reviews import ReviewConflict
from app.http.problems import MEDIA_TYPE

PROBLEM = {"$ref": "#/components/schemas/Problem"}

_EVERYWHERE = ("X-Request-ID", "traceresponse")
RESPONSE_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {  # description and schema by name
    "X-Request-ID": (
        "Id of the request in answers and log lines: yours, if it has 1 to 64 letters, digits, "
        "`.`, `_`, `-`; otherwise a new one.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ),
    "traceresponse": (
        "W3C trace of the request, if there is one: that of your `traceparent`, or a new one.",
        {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    ),
    "Location": ("Path of the record.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": (
        "Seconds until you should try again.",
        {"type": "integer", "minimum": 1},
    ),
    "RateLimit-Policy": (
        "Your limit: `q` pictures in `w` seconds. Only with a rate limit.",
        {"type": "string", "examples": ['"uploads";q=600;w=60']},
    ),
    "RateLimit": (
        "Your quota: `r` pictures now, the full limit again in `t` seconds.",
        {"type": "string", "examples": ['"uploads";r=599;t=1']},
    ),
    "Preference-Applied": (
        "The wait that was applied, in seconds; only if you sent `Prefer: wait`.",
        {"type": "string", "pattern": "^wait=[0-9]{1,2}$"},
    ),
    "Server-Timing": (
        "The record's `timings` in ms (W3C Server Timing); only of a finished detection.",
        {"type": "string", "examples": ["queued;dur=13.0, forward;dur=412.0, total;dur=480.0"]},
    ),
    "ETag": (
        "Identifies the body; send it as `If-None-Match` to avoid a repeated download. Of reviews: "
        "send it as `If-Match` with your decision.",
        {"type": "string", "pattern": '^(W/)?"[0-9a-f]{32}"$'},
    ),
    "Cache-Control": ("How long the answer may be cached, and by whom.", {"type": "string"}),
    "Content-Disposition": ("File name for saving.", {"type": "string"}),
    "WWW-Authenticate": ("`Bearer`.", {"type": "string"}),
}


def headers(*names: str) -> dict[str, dict[str, str]]:
    """References to the descriptions of header fields."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


class Documented(FastAPI):
    """FastAPI with an OpenAPI document that matches the service exactly."""

    def openapi(self) -> dict[str, Any]:
        """The document, created once."""
        if self.openapi_schema is None:
            _correct(super().openapi())
        return super().openapi()


def _correct(document: dict[str, Any]) -> None:
    """Add header fields, and remove FastAPI's validation errors, which are 400 problems here."""
    components = document["components"]
    components["headers"] = {
        name: {"description": text, "schema": schema}
        for name, (text, schema) in RESPONSE_HEADERS.items()
    }
    # The one problem with a field of its own; the schemas that it refers to are there.
    conflict = ReviewConflict.model_json_schema(ref_template="#/components/schemas/{model}")
    conflict.pop("$defs")
    components["schemas"][ReviewConflict.__name__] = conflict
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            _summarise(operation)
            answers = operation["responses"]
            if MEDIA_TYPE not in answers.get("422", {}).get("content", {MEDIA_TYPE: {}}):
                del answers["422"]
            for entry in answers.values():
                entry["headers"] = {**headers(*_EVERYWHERE), **entry.get("headers", {})}
            operation["responses"] = dict(sorted(answers.items()))
    for event in document["webhooks"].values():
        _summarise(event["post"])
        del event["post"]["responses"]["422"]


def _summarise(operation: dict[str, Any]) -> None:
    """Set the summary: the first paragraph of a docstring says more than a function's name."""
    summary, _, rest = operation.pop("description").partition("\n\n")
    operation["summary"] = " ".join(summary.split()).rstrip(".")
    if rest:
        operation["description"] = rest
