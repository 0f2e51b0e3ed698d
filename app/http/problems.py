"""Errors of the service, and their conversion to problem documents (RFC 9457)."""

from __future__ import annotations

from typing import TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.status import HTTP_401_UNAUTHORIZED

from app.contract.blobs import StorageUnavailableError
from app.contract.client import WritesRefusedError
from app.contract.details import DETAILS
from app.contract.reviews import Review, ReviewConflict
from app.contract.schemas import ROOT_PATH, ErrorCode, Problem
from app.reviews.database import ReviewsUnavailableError
from pictures.errors import PICTURE_ERRORS

MEDIA_TYPE = "application/problem+json"

STATUS: dict[ErrorCode, tuple[int, str]] = {
    ErrorCode.ORIGIN_REFUSED: (403, "The request comes from another site or machine"),
    ErrorCode.KEY_MISSING: (401, "A key is required"),
    ErrorCode.KEY_INVALID: (403, "The key is not accepted"),
    ErrorCode.RATE_LIMITED: (429, "The rate limit is exceeded"),
    ErrorCode.HEAD_TOO_LARGE: (431, "The head of the request is too large"),
    ErrorCode.TOO_MANY_CONNECTIONS: (503, "All connections are in use"),
    ErrorCode.MALFORMED_REQUEST: (400, "The request is malformed"),
    ErrorCode.FILE_MISSING: (400, "No file was sent"),
    ErrorCode.FILE_EMPTY: (400, "The file is empty"),
    ErrorCode.UPLOAD_TOO_LARGE: (413, "The upload is too large"),
    ErrorCode.TOO_MANY_UPLOADS: (503, "Too many uploads at the same time"),
    ErrorCode.TOO_MANY_DOWNLOADS: (503, "Too many downloads at the same time"),
    **{ErrorCode(kind.code): (kind.status, kind.title) for kind in PICTURE_ERRORS},
    ErrorCode.VIEW_REFUSED: (422, "The model does not support this view"),
    ErrorCode.PROCESSING_FAILED: (500, "The detection failed"),
    ErrorCode.MODEL_OUTPUT_INVALID: (500, "The model's output is invalid"),
    ErrorCode.NOT_FOUND: (404, "Not found"),
    ErrorCode.METHOD_NOT_ALLOWED: (405, "Method not allowed"),
    ErrorCode.DETECTION_UNFINISHED: (409, "The detection is not finished"),
    ErrorCode.DETECTION_FAILED: (409, "The detection has no result"),
    ErrorCode.DETECTION_EXPIRED: (410, "The detection has expired"),
    ErrorCode.NO_MASKS: (404, "The detection has no masks"),
    ErrorCode.IDEMPOTENCY_MISMATCH: (422, "The idempotency key was used for another request"),
    ErrorCode.WEBHOOK_REFUSED: (422, "The webhook URL is not accepted"),
    ErrorCode.FETCH_REFUSED: (422, "The URL of the picture is not accepted"),
    ErrorCode.FETCH_FAILED: (422, "The picture could not be fetched"),
    ErrorCode.QUEUE_TIMEOUT: (410, "The detection expired in the queue"),
    ErrorCode.QUEUE_SHARE_FULL: (429, "Your share of the queue is full"),
    ErrorCode.QUEUE_FULL: (503, "The queue is full"),
    ErrorCode.QUEUE_SLOW: (503, "The queue is too slow"),
    ErrorCode.REDIS_UNAVAILABLE: (503, "Redis is unavailable"),
    ErrorCode.STORAGE_SHARE_FULL: (429, "Your share of the storage is full"),
    ErrorCode.STORAGE_FULL: (503, "The storage is full"),
    ErrorCode.STORAGE_UNAVAILABLE: (503, "The storage is unavailable"),
    ErrorCode.NO_WORKER: (503, "No worker is ready"),
    ErrorCode.REVIEW_CONFLICT: (412, "The review has changed"),
    ErrorCode.ASSIGNMENT_TAKEN: (409, "Somebody else has the detection open"),
    ErrorCode.REVIEWS_UNAVAILABLE: (503, "Reviews are unavailable"),
    ErrorCode.INTERNAL_ERROR: (500, "Internal server error"),
}
"""HTTP status and title of each code."""

_RETRY_AFTER = {  # s
    ErrorCode.TOO_MANY_CONNECTIONS: 1,
    ErrorCode.TOO_MANY_UPLOADS: 5,
    ErrorCode.TOO_MANY_DOWNLOADS: 5,
    ErrorCode.DETECTION_UNFINISHED: 1,
    ErrorCode.REDIS_UNAVAILABLE: 5,
    ErrorCode.STORAGE_SHARE_FULL: 60,
    ErrorCode.STORAGE_FULL: 10,
    ErrorCode.STORAGE_UNAVAILABLE: 5,
    ErrorCode.NO_WORKER: 5,
    ErrorCode.REVIEWS_UNAVAILABLE: 5,
}
_CODE_OF_STATUS = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}

OUTAGES = (
    RedisConnectionError,
    RedisTimeoutError,
    OutOfMemoryError,
    WritesRefusedError,
    StorageUnavailableError,
    ReviewsUnavailableError,
)
"""Exceptions that mean that Redis, the bucket or the database is unavailable."""

log = structlog.get_logger()

E = TypeVar("E", bound=Exception)


class ServiceError(Exception):
    """An error with a stable code.

    Args:
        code: decides HTTP status and title.
        detail: one sentence for the caller, about this occurrence; None: as in `DETAILS`.
        detection: path of the record it belongs to, if there is one.
        retry_after: seconds until it is worth trying again; None: as usual for the code.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str | None = None,
        *,
        detection: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.code = code
        self.detail = DETAILS[code] if detail is None else detail
        super().__init__(self.detail)
        self.detection = detection
        self.retry_after = _RETRY_AFTER.get(code) if retry_after is None else retry_after


class ReviewConflictError(ServiceError):
    """`review_conflict`.

    Args:
        review: the current decision; None: there is none.
        tag: `ETag` of the detection's reviews.
        detection: path of the record.
    """

    def __init__(self, review: Review | None, tag: str, detection: str) -> None:
        super().__init__(ErrorCode.REVIEW_CONFLICT, detection=detection)
        self.review = review
        self.tag = tag


def document(request: Request, error: ServiceError) -> Problem:
    """The problem document of an error, with the id of the request."""
    return describe(error, request.state.request_id)


def describe(error: ServiceError, request_id: str) -> Problem:
    """The problem document of an error."""
    status, title = STATUS[error.code]
    described = Problem(
        type=f"/docs#{error.code}",
        title=title,
        status=status,
        detail=error.detail.encode(errors="replace").decode(),  # of surrogates, which JSON may have
        code=error.code,
        request_id=request_id,
        detection=error.detection,
        retry_after=error.retry_after,
    )
    if isinstance(error, ReviewConflictError):
        return ReviewConflict(**dict(described), review=error.review)
    return described


def problem(request: Request, error: ServiceError) -> Response:
    """The response to a request that failed."""
    request.state.error_code = error.code
    described = document(request, error)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if described.status == HTTP_401_UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.detection is not None:
        headers["Location"] = link(request, error.detection)
    if isinstance(error, ReviewConflictError):
        headers["ETag"] = error.tag
    content = described.model_dump(mode="json", exclude_none=True, context=link_context(request))
    return JSONResponse(content, described.status, headers, MEDIA_TYPE)


def link_context(request: Request) -> dict[str, str]:
    """Serialization context of `Link`s in responses to a request."""
    return {ROOT_PATH: request.app.state.root_path}


def link(request: Request, path: str) -> str:
    """A path of the API with the root path in front."""
    return f"{request.app.state.root_path}{path}"


def without_traceback(error: E) -> E:
    """Remove the traceback of an error.

    Its frames hold the upload, and often the error itself; this cycle would keep the upload in
    memory until the next full garbage collection.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - registered for this class only
    return problem(request, without_traceback(error))


def of_outage(error: Exception) -> ServiceError:
    """Log one of `OUTAGES` and convert it to a `ServiceError`."""
    if isinstance(error, ReviewsUnavailableError):  # logged by the database
        return ServiceError(ErrorCode.REVIEWS_UNAVAILABLE)
    if isinstance(error, StorageUnavailableError):
        log.error("storage_unavailable", error=str(error))
        return ServiceError(ErrorCode.STORAGE_UNAVAILABLE)
    if isinstance(error, OutOfMemoryError):
        log.error("storage_full", error=str(error))
        return ServiceError(ErrorCode.STORAGE_FULL, "Redis has reached its memory limit.")
    log.error("redis_unavailable", error=str(error))
    if isinstance(error, WritesRefusedError):
        return ServiceError(ErrorCode.REDIS_UNAVAILABLE, "The queue accepts no jobs at the moment.")
    return ServiceError(ErrorCode.REDIS_UNAVAILABLE)


async def _outage(request: Request, error: Exception) -> Response:
    return problem(request, of_outage(without_traceback(error)))


async def _disconnected(request: Request, _: Exception) -> Response:
    # Only for the log and the metrics, as the client is gone.
    return problem(
        request,
        ServiceError(ErrorCode.MALFORMED_REQUEST, "The connection ended before the body did."),
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    details = "; ".join(
        f"{'.'.join(str(part) for part in found['loc'][1:])}: {found['msg']}"
        for found in error.errors()
    )
    return problem(request, ServiceError(ErrorCode.MALFORMED_REQUEST, details))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = _CODE_OF_STATUS.get(error.status_code, ErrorCode.MALFORMED_REQUEST)
    answer = problem(request, ServiceError(code, f"{request.method} {request.url.path}"))
    answer.headers.update(error.headers or {})
    if code is ErrorCode.METHOD_NOT_ALLOWED:  # Starlette lists the methods of one route only
        path = getattr(request.scope.get("route"), "path", None)
        methods = request.app.openapi()["paths"].get(path)
        if methods:
            answer.headers["Allow"] = ", ".join(method.upper() for method in methods)
    return answer


def of_unexpected(error: Exception, **facts: str) -> ServiceError:
    """Log an unexpected error and convert it to a `ServiceError`."""
    log.error("unexpected_error", exc_info=error, **facts)
    return ServiceError(ErrorCode.INTERNAL_ERROR)


async def _unexpected(request: Request, error: Exception) -> Response:
    return problem(request, of_unexpected(error, request_id=request.state.request_id))


def install(api: FastAPI) -> None:
    """Register the exception handlers."""
    api.add_exception_handler(ServiceError, _service_error)
    for outage in OUTAGES:
        api.add_exception_handler(outage, _outage)
    api.add_exception_handler(ClientDisconnect, _disconnected)
    api.add_exception_handler(RequestValidationError, _validation_error)
    api.add_exception_handler(HTTPException, _http_exception)
    api.add_exception_handler(Exception, _unexpected)
