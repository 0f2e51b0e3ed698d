"""How many files and sockets a process may have open."""

from __future__ import annotations

import resource

import structlog

from app.contract.settings import Settings

_OTHERS = 200  # connections to Redis and the bucket, uploads on disk, decoders, and the program

log = structlog.get_logger()


def needed(settings: Settings) -> int:
    """By the API, if all the connections are used that it may have."""
    return settings.max_connections + _OTHERS


def allowed() -> int:
    """The hard limit: as many as this process may allow itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 2**31


def provide(settings: Settings) -> None:
    """Raise the soft limit, which is often 1024, as far as it is needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(needed(settings), allowed())
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed(settings):
        log.warning("too_few_files", allowed=wanted, needed=needed(settings))
