"""Export of spans to a collector, by OTLP over HTTP, as the standard `OTEL_*` variables say."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

import structlog

from app.contract import tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_FLUSH = 3.0  # s at the end for the last spans; a worker has 5 s after its last job

log = structlog.get_logger()


class SpanExportError(ValueError):
    """Spans cannot be exported as configured."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether `OTEL_*` variables ask for the export of spans.

    Raises:
        SpanExportError: If they ask for another exporter or protocol.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise SpanExportError(f"OTEL_TRACES_EXPORTER must be otlp or none, not {exporter}")
    if not exporter and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    for name in _PROTOCOLS:
        protocol = environment.get(name)
        if protocol:
            if protocol != "http/protobuf":
                raise SpanExportError(f"{name} must be http/protobuf, not {protocol}")
            break
    return True


@contextmanager
def exporting(program: str) -> Iterator[None]:
    """Export the spans of this process while inside, if `OTEL_*` variables ask for it.

    Spans are sent by a thread, in batches. If the collector is slow or down, they are dropped and
    nothing waits for it, except the end of the process, for at most 3 s.

    Args:
        program: name of the program; the service is `gamma-PROGRAM` unless a variable names it.

    Raises:
        SpanExportError: If the variables ask for another exporter, or the extra `otel` is missing.
    """
    if not wanted(os.environ):
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SpanExportError(
            "OTEL_* variables ask for traces, which need the extra otel: "
            "pip install 'gamma-detect[otel]'"
        ) from None
    ours = {
        "service.name": f"gamma-{program}",
        "service.version": version("gamma-detect"),
        "host.name": socket.gethostname(),
    }
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracing.use(provider)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)  # uvicorn raises it again, to end the process
    log.info("exporting_spans", service=resource.attributes["service.name"])
    try:
        yield
    finally:
        tracing.use(None)
        # In a thread, because it waits up to 30 s for a collector that does not answer.
        flushing = threading.Thread(target=provider.shutdown, name="flush", daemon=True)
        flushing.start()
        flushing.join(_FLUSH)


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)
