"""Times of stages, as metrics and as spans.

A picture's span, `detection`, lasts from its job being taken until its record is written, and has
its stages as children. A batch serves many pictures: it has a trace of its own, with links to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind

from app.contract import tracing
from app.contract.schemas import Detection
from worker import metrics


@dataclass(frozen=True)
class _Picture:
    """A picture in progress.

    Attributes:
        span: covers its work here.
        request: context of the request that uploaded it.
        taken: time at which its job was taken, ns since epoch.
    """

    span: Span
    request: Context
    taken: int


_pictures: dict[str, _Picture] = {}  # recorded ones only, by id of the detection


def begin(detection_id: str, meta: object, taken: float) -> tracing.Origin:
    """Begin the span of a picture.

    Args:
        detection_id: id of the detection.
        meta: `meta` of its job.
        taken: time at which the job was taken, s since epoch.

    Returns:
        Ids for its log lines.
    """
    request, moment = tracing.context_of(meta), int(taken * 1e9)
    span = tracing.tracer().start_span(
        "detection",
        request,
        SpanKind.CONSUMER,
        {"gamma.detection_id": detection_id},
        start_time=moment,
    )
    if span.is_recording():
        _pictures[detection_id] = _Picture(span, request, moment)
    return tracing.origin_of(meta, span)


def waited(record: Detection) -> None:
    """Record the span of a picture's wait in the queue."""
    picture = _pictures.get(record.id)
    if picture is not None:
        since = min(picture.taken, int(record.created_at.timestamp() * 1e9))
        span = tracing.tracer().start_span("queue", picture.request, start_time=since)
        span.end(picture.taken)


def end(detection_id: str, outcome: str, error: Exception | None = None) -> None:
    """End the span of a picture; does nothing if it has ended."""
    picture = _pictures.pop(detection_id, None)
    if picture is not None:
        picture.span.set_attribute("gamma.outcome", outcome)
        if error is not None:
            tracing.fail(picture.span, type(error).__name__)
        picture.span.end()


def stage(name: str, detection_ids: Sequence[str]) -> AbstractContextManager[object]:
    """Record the time of a stage, as a metric and as a span of each of its pictures."""
    timer = metrics.STAGE_DURATION.labels(name).time()
    return _timed_spans(timer, name, detection_ids) if _pictures else timer


@contextmanager
def batch(detection_ids: Sequence[str]) -> Iterator[None]:
    """Record the span of a batch, which is current inside, and the span of each picture in it."""
    links = [Link(one.span.get_span_context()) for one in _recorded(detection_ids)]
    if not links:
        yield
        return
    span = tracing.tracer().start_span(
        "batch", Context(), attributes={"gamma.pictures": len(detection_ids)}, links=links
    )
    made = [Link(span.get_span_context())] if span.is_recording() else []
    try:
        with tracing.active(span), _spans("forward", detection_ids, made):
            yield
    except Exception as error:
        tracing.fail(span, type(error).__name__)
        raise
    finally:
        span.end()


@contextmanager
def _timed_spans(
    timer: AbstractContextManager[object], name: str, detection_ids: Sequence[str]
) -> Iterator[None]:
    with _spans(name, detection_ids), timer:
        yield


@contextmanager
def _spans(name: str, detection_ids: Sequence[str], links: Sequence[Link] = ()) -> Iterator[None]:
    started, failure = time.time_ns(), None
    try:
        yield
    except Exception as error:
        failure = type(error).__name__
        raise
    finally:
        for one in _recorded(detection_ids):
            span = tracing.tracer().start_span(
                name, tracing.child_of(one.span), links=links, start_time=started
            )
            if failure is not None:
                tracing.fail(span, failure)
            span.end()


def _recorded(detection_ids: Sequence[str]) -> list[_Picture]:
    return [one for name in detection_ids if (one := _pictures.get(name)) is not None]
