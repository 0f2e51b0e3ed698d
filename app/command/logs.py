"""Structured logs, one line per event, for GAMMA and its libraries."""

from __future__ import annotations

import faulthandler
import logging
import signal
import socket
import sys
from importlib.metadata import version

import structlog

from app.contract import tracing
from app.contract.settings import Settings


def _add_span(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the ids of the current span, if there is one and the line does not name another."""
    for name, value in tracing.ids_of(tracing.current()).items():
        event.setdefault(name, value)
    return event


def _adder(**fields: str) -> structlog.typing.Processor:
    """A processor that adds the same fields to each line."""

    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, **fields}

    return add


_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    _add_span,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_JSON = structlog.processors.JSONRenderer()
_MAX_LENGTH = 2000  # characters of a value, which may come from a request
_VERBOSE = ("PIL", "httpx2", "httpcore2", "filelock", "huggingface_hub")
_LEAKY = ("aiobotocore", "botocore", "s3fs")  # at `debug` they log signatures of requests


def configure(settings: Settings) -> None:
    """Send all log lines of this process to standard error, in the configured format.

    GAMMA's own lines bypass `logging`, which would double the cost of a line. On SIGUSR1 the
    process writes what each of its threads is doing to standard error, and goes on.
    """
    if sys.__stderr__ is not None:
        faulthandler.register(signal.SIGUSR1, sys.__stderr__, all_threads=True)
    rendering: list[structlog.typing.Processor] = (
        [_adder(host=socket.gethostname(), version=version("gamma-detect")), _JSON]
        if settings.log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    # Plain tracebacks: those with local variables would show keys and pictures.
    last: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        _without_control_characters,
        *rendering,
    ]
    structlog.configure(
        processors=[*_SHARED, *last],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name in (*_VERBOSE, *_LEAKY):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_control_characters(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape control characters and truncate long values.

    Only `exception`, a traceback, keeps its line breaks.
    """
    for name, value in event.items():
        if not isinstance(value, str):
            continue
        if name == "exception":
            event[name] = "\n".join(map(_printable, value.split("\n")))
        else:
            event[name] = _printable(value)
    return event


def _printable(text: str) -> str:
    if len(text) > _MAX_LENGTH:
        text = f"{text[:_MAX_LENGTH]}…"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
