"""Structured logs: one line an event, for our own lines and for those of the libraries."""

from __future__ import annotations

import logging
import sys

import structlog

from app.contract.settings import Settings

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_LONGEST = 2000  # characters of a value: what strangers send gets into log lines
_QUIET = ("PIL", "httpx2", "httpcore2", "filelock", "huggingface_hub")
_SECRETIVE = ("aiobotocore", "botocore", "s3fs")  # at `debug` they log requests, signatures and all


def configure(settings: Settings) -> None:
    """Send every log line of this process to standard error in the format of the settings.

    Ours do not pass through `logging`, which takes as long as the rest of a line: every request
    writes one.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    # Tracebacks are Python's own: those with the local variables would show keys and pictures.
    last: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        _without_control_characters,
        renderer,
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
    for name in (*_QUIET, *_SECRETIVE):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_control_characters(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape what could end a line or speak to a terminal, and cut what is too long.

    Only a traceback, under the name `exception`, keeps its lines.
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
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
