"""Middleware for request ids, spans, the log line, metrics and security headers."""

from __future__ import annotations

import time
import uuid

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, get_current_span
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.contract import tracing
from app.http import guard
from app.http.client_addresses import Shown, client_of
from app.http.metrics import REJECTIONS, REQUEST_DURATION, REQUESTS, UNCOUNTED

REQUEST_ID_HEADER = "X-Request-ID"
TRACE_HEADER = "traceresponse"
"""Response header of a W3C draft, with the format of `traceparent`."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_METHOD_NOT_ALLOWED = 405
_SERVER_ERROR = 500
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

    def __init__(self, app: ASGIApp, root_path: str = "", log_client: Shown = "masked") -> None:
        """Wrap an application.

        Args:
            app: application, with paths without `root_path`.
            root_path: prefix to remove from paths, if the proxy has not removed it.
            log_client: how log lines and spans show the client's address.
        """
        self._app = app
        self._root_path = root_path
        self._log_client = log_client

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
        span = _begin(scope, method)
        trace = span.get_span_context()
        guard.begin()
        started = time.perf_counter()
        status = 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {
                    REQUEST_ID_HEADER: state["request_id"],
                    **({TRACE_HEADER: tracing.header(trace)} if trace.is_valid else {}),
                    **state.get("headers", {}),
                }
                given = message["headers"]
                present = {name for name, _ in given}
                defaults = (field for field in _SECURITY_HEADERS if field[0] not in present)
                message["headers"] = [*given, *Headers(own).raw, *defaults]
            await send(message)

        with tracing.request(state["request_id"], span):
            try:
                await self._app(scope, receive, observed_send)
            finally:
                self._record(scope, span, method, status, time.perf_counter() - started)

    def _record(self, scope: Scope, span: Span, method: str, status: int, seconds: float) -> None:
        # For a mounted folder only the mount point is known, in root_path.
        path = getattr(scope.get("route"), "path", None) or scope.get("root_path") or "unmatched"
        if path in UNCOUNTED:
            return
        state = scope["state"]
        # Unknown and unsupported methods share one label, to bound the number of series.
        known = method in _METHODS and status != _METHOD_NOT_ALLOWED
        method = method if known else "other"
        REQUESTS.labels(method, path, status).inc()
        REQUEST_DURATION.labels(method, path).observe(seconds)
        code = state.get("error_code")
        if code is not None:
            REJECTIONS.labels(code).inc()
        about = {
            "code": code,
            "caller": state.get("caller"),
            "detection_id": scope.get("path_params", {}).get("detection_id")
            or state.get("detection_id"),
        }
        client = client_of(scope, self._log_client)
        log.info(
            "request",
            method=method,
            route=path,
            status=status,
            seconds=round(seconds, 4),
            key=state.get("key"),
            client=client,
            **about,
        )
        if not span.is_recording():
            return
        span.update_name(f"{method} {path}")
        shown = {
            "http.route": path,
            "http.response.status_code": status,
            "client.address": client,
            "gamma.request_id": state["request_id"],
            **{f"gamma.{name}": value for name, value in about.items()},
        }
        span.set_attributes({name: value for name, value in shown.items() if value is not None})
        if status >= _SERVER_ERROR:
            tracing.fail(span, code or str(status))
        span.end()


def _request_id(scope: Scope) -> str:
    """The id that the caller sent if it is valid, else a new one."""
    for given in _headers(scope, REQUEST_ID_HEADER):
        if tracing.REQUEST_ID.fullmatch(given):
            return given
    return uuid.uuid4().hex


def _begin(scope: Scope, method: str) -> Span:
    """The span of a request, as a child of the caller's if `traceparent` is valid.

    A request to an uncounted route has no span of its own.
    """
    given = _headers(scope, tracing.HEADER)
    parent = tracing.parse(given[0]) if len(given) == 1 else Context()
    if scope["path"] in UNCOUNTED:
        return get_current_span(parent)
    known = method if method in _METHODS else "other"
    return tracing.tracer().start_span(
        known, parent, SpanKind.SERVER, {"http.request.method": known}
    )


def _headers(scope: Scope, name: str) -> list[str]:
    wanted = name.lower().encode()
    return [value.decode("latin-1") for found, value in scope["headers"] if found == wanted]
