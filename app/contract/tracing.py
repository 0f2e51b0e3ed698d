"""Where work comes from: the request's id and the W3C trace, passed on from process to process.

An upload's origin goes with its RQ jobs, whose `meta` it is, to the worker's and the delivery's log
lines. What comes from outside, Redis included, counts only if it is of the exact form.
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
"""An id that is harmless to repeat and to log."""

_KNOWN_FLAGS = 0x03  # sampled, random: those of level 2
_PROPAGATOR = TraceContextTextMapPropagator()

_meta: ContextVar[Mapping[str, str]] = ContextVar("meta", default=MappingProxyType({}))


class Origin(TypedDict, total=False):
    """What log lines of other processes tell of the request behind them."""

    request_id: str
    trace_id: str


@dataclass(frozen=True)
class Trace:
    """A place in a trace (https://www.w3.org/TR/trace-context-2/).

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16, of what happens here.
        flags: passed on as they came. A trace that begins here asks nobody to record it.
    """

    trace_id: str
    span_id: str
    flags: int = 0

    @classmethod
    def parse(cls, value: str) -> Trace | None:
        """The place that a `traceparent` names, or None if it is malformed."""
        span = get_current_span(_PROPAGATOR.extract({HEADER: value})).get_span_context()
        if not span.is_valid:
            return None
        trace_id, span_id = format_trace_id(span.trace_id), format_span_id(span.span_id)
        return cls(trace_id, span_id, span.trace_flags & _KNOWN_FLAGS)

    @classmethod
    def begin(cls) -> Trace:
        """A trace of its own."""
        return cls(secrets.token_hex(16), _new_span_id())

    def child(self) -> Trace:
        """The next place in the same trace."""
        return Trace(self.trace_id, _new_span_id(), self.flags)

    def header(self) -> str:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def enter(request_id: str, trace: Trace) -> None:
    """Name the request at hand in all log lines of this context, and in the jobs made in it."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(
        request_id=request_id, trace_id=trace.trace_id, span_id=trace.span_id
    )
    _meta.set({"request_id": request_id, HEADER: trace.header()})


def meta() -> dict[str, str]:
    """What an RQ job keeps of the request at hand; nothing outside of requests."""
    return dict(_meta.get())


def trace_of(job_meta: object) -> Trace | None:
    """The trace in what `meta` made, if it is of the right form."""
    value = job_meta.get(HEADER) if isinstance(job_meta, Mapping) else None
    return Trace.parse(value) if isinstance(value, str) else None


def origin_of(job_meta: object) -> Origin:
    """The ids in what `meta` made, as far as they are of the right form."""
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
