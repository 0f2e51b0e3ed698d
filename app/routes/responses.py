"""What the OpenAPI entries of several routes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import BaseModel

from app.problems import MEDIA_TYPE, STATUS
from app.schemas import ErrorCode, Problem

NO_STORE = {"Cache-Control": "no-store"}
"""Header fields of records: they change, and only their owner may see them."""

DetectionId = Annotated[str, Path(max_length=64)]


def problems(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries of the refusals a route can give."""
    entries: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        http_status, _ = STATUS[code]
        entry = entries.setdefault(http_status, {"model": Problem, "description": ""})
        entry["description"] += f"{', ' if entry['description'] else ''}`{code}`"
        entry["content"] = {MEDIA_TYPE: {}}
    return entries


KEY_PROBLEMS = problems(ErrorCode.KEY_MISSING, ErrorCode.KEY_INVALID)
"""Refusals that every route under `/v1` can give."""


def json_answer(
    body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A record or several, with a status and header fields beside those of every record."""
    return Response(
        body.model_dump_json(), status, {**NO_STORE, **(headers or {})}, "application/json"
    )
