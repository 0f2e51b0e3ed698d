"""Request ids and spans, passed between processes.

Request id and `traceparent` (https://www.w3.org/TR/trace-context-2/) are stored in the `meta` of RQ
jobs. Values from requests and from Redis are used only if they are well-formed. Without an
exporter no spans are made: the caller's trace is then passed on as it came, and without one there
is no trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, TypedDict

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import (
    NoOpTracer,
    Span,
    SpanContext,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

HEADER = "traceparent"

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids that are safe to return and to log."""

_KNOWN_FLAGS = 0x03  # sampled, random (level 2)
_PROPAGATOR = TraceContextTextMapPropagator()

_tracer: Tracer = NoOpTracer()
_meta: ContextVar[Mapping[str, str]] = ContextVar("meta", default=MappingProxyType({}))


class Origin(TypedDict, total=False):
    """Ids in a log line: of the request it belongs to, and of the span it was written in."""

    request_id: str
    trace_id: str
    span_id: str


def use(provider: TracerProvider | None) -> None:
    """Make spans with this provider from now on; None: make none."""
    global _tracer
    _tracer = NoOpTracer() if provider is None else _tracer_of(provider)


def _tracer_of(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("gamma", version("gamma-detect"))


def tracer() -> Tracer:
    """The tracer of this process."""
    return _tracer


def parse(traceparent: str) -> Context:
    """Context with the span that a `traceparent` names; an empty one if it is malformed."""
    return _PROPAGATOR.extract({HEADER: traceparent})


def context_of(job_meta: object) -> Context:
    """Context with the span that created a job; an empty one if none is named."""
    value = job_meta.get(HEADER) if isinstance(job_meta, Mapping) else None
    return parse(value) if isinstance(value, str) else Context()


def child_of(span: Span) -> Context:
    """Context for children of a span."""
    return set_span_in_context(span, Context())


def current() -> SpanContext:
    """The current span; not valid if there is none."""
    return get_current_span().get_span_context()


def headers(span: SpanContext) -> dict[str, str]:
    """A `traceparent` that names a span; empty if the span is not valid."""
    return {HEADER: header(span)} if span.is_valid else {}


def header(span: SpanContext) -> str:
    """The value of `traceparent` for a valid span."""
    ids = f"{format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}"
    return f"00-{ids}-{span.trace_flags & _KNOWN_FLAGS:02x}"


@contextmanager
def request(request_id: str, span: Span) -> Iterator[None]:
    """Add the ids of a request to all log lines and jobs of this context."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    _meta.set({"request_id": request_id, **headers(span.get_span_context())})
    with active(span):
        yield


@contextmanager
def active(span: Span) -> Iterator[None]:
    """Make a span the current one. It is not ended, and records no texts of errors."""
    with use_span(span, record_exception=False, set_status_on_exception=False):
        yield


def fail(span: Span, kind: str) -> None:
    """Mark a span as failed.

    Args:
        span: span that has not ended.
        kind: type of the error; its text may contain data of a caller.
    """
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute("error.type", kind)


def meta() -> dict[str, str]:
    """Ids of the current request, for the `meta` of an RQ job; empty outside requests."""
    return dict(_meta.get())


def ids_of(span: SpanContext) -> Origin:
    """Ids of a span for a log line; empty if the span is not valid."""
    if not span.is_valid:
        return Origin()
    return Origin(trace_id=format_trace_id(span.trace_id), span_id=format_span_id(span.span_id))


def origin_of(job_meta: object, span: Span) -> Origin:
    """Ids for log lines about a job: its request, if well-formed, and the span of its work."""
    given: Any = job_meta.get("request_id") if isinstance(job_meta, Mapping) else None
    known = isinstance(given, str) and REQUEST_ID.fullmatch(given)
    origin = Origin(request_id=given) if known else Origin()
    return origin | ids_of(span.get_span_context())
