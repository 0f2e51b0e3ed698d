"""Request ids and W3C trace contexts, passed between processes.

They are stored in the `meta` of RQ jobs and appear in the log lines of workers and deliveries.
Values from requests and from Redis are used only if they are well-formed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypedDict

import structlog
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

HEADER = "traceparent"

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids that are safe to return and to log."""

_KNOWN_FLAGS = 0x03  # sampled, random (level 2)
_PROPAGATOR = TraceContextTextMapPropagator()

_meta: ContextVar[Mapping[str, str]] = ContextVar("meta", default=MappingProxyType({}))


class Origin(TypedDict, total=False):
    """Ids of the request that a log line of another process belongs to."""

    request_id: str
    trace_id: str


@dataclass(frozen=True)
class Trace:
    """A span of a trace (https://www.w3.org/TR/trace-context-2/).

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        flags: propagated from the parent; 0 in a new trace.
    """

    trace_id: str
    span_id: str
    flags: int = 0

    @classmethod
    def parse(cls, value: str) -> Trace | None:
        """Parse a `traceparent`; None if it is malformed."""
        span = get_current_span(_PROPAGATOR.extract({HEADER: value})).get_span_context()
        if not span.is_valid:
            return None
        trace_id, span_id = format_trace_id(span.trace_id), format_span_id(span.span_id)
        return cls(trace_id, span_id, span.trace_flags & _KNOWN_FLAGS)

    @classmethod
    def begin(cls) -> Trace:
        """Start a new trace."""
        return cls(secrets.token_hex(16), _new_span_id())

    def child(self) -> Trace:
        """Create a child span."""
        return Trace(self.trace_id, _new_span_id(), self.flags)

    def header(self) -> str:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def enter(request_id: str, trace: Trace) -> None:
    """Add the ids of a request to all log lines and jobs of this context."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(
        request_id=request_id, trace_id=trace.trace_id, span_id=trace.span_id
    )
    _meta.set({"request_id": request_id, HEADER: trace.header()})


def meta() -> dict[str, str]:
    """Ids of the current request, for the `meta` of an RQ job; empty outside requests."""
    return dict(_meta.get())


def trace_of(job_meta: object) -> Trace | None:
    """Parse the trace in a job's `meta`; None if it is missing or malformed."""
    value = job_meta.get(HEADER) if isinstance(job_meta, Mapping) else None
    return Trace.parse(value) if isinstance(value, str) else None


def origin_of(job_meta: object) -> Origin:
    """The well-formed ids in a job's `meta`."""
    origin = Origin()
    given: Any = job_meta.get("request_id") if isinstance(job_meta, Mapping) else None
    if isinstance(given, str) and REQUEST_ID.fullmatch(given):
        origin["request_id"] = given
    trace = trace_of(job_meta)
    if trace is not None:
        origin["trace_id"] = trace.trace_id
    return origin


def _new_span_id() -> str:
    return f"{secrets.randbelow(2**64 - 1) + 1:016x}"
