"""Routes that refuse unknown and repeated query parameters, and too large JSON bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, get_args, get_origin

from fastapi import Request, Response
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import Message

from app.contract.schemas import ErrorCode
from app.http.problems import ServiceError

_MAX_PARAMETERS = 128
_MAX_BODY = 64 * 1024  # bytes
_MAX_NAME = 100  # characters of an unknown parameter's name in the message


class StrictRoute(APIRoute):
    """Refuses unknown query parameters, repeated ones that are not lists, and large JSON bodies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, with the checks in front."""
        handle = super().get_route_handler()
        repeatable = {
            parameter.alias: _is_list(parameter.field_info.annotation)
            for parameter in _query_params(self.dependant)
        }
        for documented in (self.openapi_extra or {}).get("parameters", ()):
            if documented["in"] == "query":  # read by the route itself
                repeatable[documented["name"]] = False

        async def strict(request: Request) -> Response:
            if request.scope["query_string"]:
                _check(request, repeatable)
            if self.body_field is not None:
                request = await _read(request)
            return await handle(request)

        return strict


async def _read(request: Request) -> Request:
    """The request with its body in memory.

    Raises:
        ServiceError: If the body is too large: `upload_too_large`.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY:
            raise ServiceError(
                ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {_MAX_BODY} bytes for a JSON body."
            )

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return Request(request.scope, receive)


def _query_params(dependant: Dependant) -> Iterator[ModelField]:
    yield from dependant.query_params
    for other in dependant.dependencies:
        yield from _query_params(other)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(one) is list for one in (annotation, *get_args(annotation)))


def _check(request: Request, repeatable: dict[str, bool]) -> None:
    if request.scope["query_string"].count(b"&") >= _MAX_PARAMETERS:
        raise ServiceError(
            ErrorCode.MALFORMED_REQUEST,
            f"A request may have at most {_MAX_PARAMETERS} query parameters.",
        )
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        if name not in repeatable:
            known = ", ".join(repeatable) or "none"
            detail = f"`{name[:_MAX_NAME]}` is not a parameter of this call; it has {known}."
        elif times > 1 and not repeatable[name]:
            detail = f"`{name}` is given more than once."
        else:
            continue
        raise ServiceError(ErrorCode.MALFORMED_REQUEST, detail)
