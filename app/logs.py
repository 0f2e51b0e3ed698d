"""Structured logs: one line an event, for our own lines and for those of the libraries."""

from __future__ import annotations

import logging
import sys

import structlog

from app.settings import Settings

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
    as_json = settings.log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    last: list[structlog.typing.Processor] = [
        _on_one_line,
        *([structlog.processors.format_exc_info] if as_json else []),
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


def _on_one_line(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape what could end a line or speak to a terminal, and cut what is too long."""
    for name, value in event.items():
        if isinstance(value, str):
            kept = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
            event[name] = kept if kept.isprintable() else _escaped(kept)
    return event


def _escaped(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
