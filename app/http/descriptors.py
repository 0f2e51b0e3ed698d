"""Limit of open file descriptors."""

from __future__ import annotations

import resource

import structlog

from app.contract.settings import Settings

_OTHERS = 200  # connections to Redis and the bucket, uploads on disk, decoders, code

log = structlog.get_logger()


def needed(settings: Settings) -> int:
    """Number of descriptors that the API needs with all connections in use."""
    return settings.max_connections + _OTHERS


def allowed() -> int:
    """Hard limit of this process."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 2**31


def provide(settings: Settings) -> None:
    """Raise the soft limit as far as needed and allowed; warn if that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(needed(settings), allowed())
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed(settings):
        log.warning("too_few_files", allowed=wanted, needed=needed(settings))
