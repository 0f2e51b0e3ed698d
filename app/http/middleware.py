"""Middleware for request ids, traces, the log line, metrics and security headers."""

from __future__ import annotations

import time
import uuid

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.contract import tracing
from app.http import guard
from app.http.metrics import REJECTIONS, REQUEST_DURATION, REQUESTS, UNCOUNTED

REQUEST_ID_HEADER = "X-Request-ID"
TRACE_HEADER = "traceresponse"
"""Response header of a W3C draft, with the format of `traceparent`."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_METHOD_NOT_ALLOWED = 405
_SECURITY_HEADERS = Headers(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
).raw

log = structlog.get_logger()


class RequestMiddleware:
    """Outermost ASGI middleware, so that it sees every response."""

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        """Wrap an application.

        Args:
            app: application, with paths without `root_path`.
            root_path: prefix to remove from paths, if the proxy has not removed it.
        """
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # handled as GET; uvicorn omits the body
            scope = {**scope, "method": "GET"}
        if self._root_path and scope["path"].startswith(f"{self._root_path}/"):
            scope = {**scope, "path": scope["path"].removeprefix(self._root_path)}
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(scope)
        trace = _trace(scope)
        tracing.enter(state["request_id"], trace)
        guard.begin()
        started = time.perf_counter()
        status = 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {
                    REQUEST_ID_HEADER: state["request_id"],
                    TRACE_HEADER: trace.header(),
                    **state.get("headers", {}),
                }
                given = message["headers"]
                present = {name for name, _ in given}
                defaults = (field for field in _SECURITY_HEADERS if field[0] not in present)
                message["headers"] = [*given, *Headers(own).raw, *defaults]
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        finally:
            _record(scope, method, status, time.perf_counter() - started)


def _record(scope: Scope, method: str, status: int, seconds: float) -> None:
    # For a mounted folder only the mount point is known, in root_path.
    path = getattr(scope.get("route"), "path", None) or scope.get("root_path") or "unmatched"
    if path in UNCOUNTED:
        return
    # Unknown and unsupported methods share one label, to bound the number of series.
    known = method in _METHODS and status != _METHOD_NOT_ALLOWED
    method = method if known else "other"
    REQUESTS.labels(method, path, status).inc()
    REQUEST_DURATION.labels(method, path).observe(seconds)
    code = scope["state"].get("error_code")
    if code is not None:
        REJECTIONS.labels(code).inc()
    log.info(
        "request",
        method=method,
        route=path,
        status=status,
        seconds=round(seconds, 4),
        code=code,
        caller=scope["state"].get("caller"),
        key=scope["state"].get("key"),
        detection_id=scope.get("path_params", {}).get("detection_id")
        or scope["state"].get("detection_id"),
    )


def _request_id(scope: Scope) -> str:
    """The id that the caller sent if it is valid, else a new one."""
    for given in _headers(scope, REQUEST_ID_HEADER):
        if tracing.REQUEST_ID.fullmatch(given):
            return given
    return uuid.uuid4().hex


def _trace(scope: Scope) -> tracing.Trace:
    """A child span of the caller's trace, or a new trace if there is no valid one."""
    given = _headers(scope, tracing.HEADER)
    parent = tracing.Trace.parse(given[0]) if len(given) == 1 else None
    return tracing.Trace.begin() if parent is None else parent.child()


def _headers(scope: Scope, name: str) -> list[str]:
    wanted = name.lower().encode()
    return [value.decode("latin-1") for found, value in scope["headers"] if found == wanted]
