"""`gamma api`: the HTTP server."""

from __future__ import annotations

import contextlib
import ctypes

import uvicorn

from app.contract.ports import check_port
from app.contract.settings import Settings
from app.http import descriptors, metrics
from app.http.api import create_app
from app.http.callers import is_loopback
from app.http.protocol import BoundedProtocol

_DRAIN = 70  # s; longer than the longest `Prefer: wait`
_M_MMAP_THRESHOLD = -3  # malloc.h
_KEEP_ALIVE = 75  # s; longer than the idle time of common load balancers


class OpenBindError(ValueError):
    """The API would be open to everyone who can reach the machine."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"binding {host} without keys opens the API to everyone who can reach it; "
            "set GAMMA_API_KEYS or GAMMA_CALLERS_FILE, or pass --allow-anonymous "
            "(GAMMA_ALLOW_ANONYMOUS=true) if that is what you want"
        )


def check_binding(settings: Settings) -> None:
    """Refuse to bind beyond loopback without keys, unless that is asked for.

    Raises:
        OpenBindError: see there.
    """
    guarded = settings.asks_for_keys or settings.allow_anonymous
    if not guarded and not is_loopback(settings.host):
        raise OpenBindError(settings.host)


def _return_freed_memory() -> None:
    """Have glibc give large blocks back when they are freed, whatever was freed before.

    By default it begins to keep blocks of up to 32 MiB after the first such block (mallopt(3),
    M_MMAP_THRESHOLD), in an arena for each thread: hundreds of MiB after some large uploads.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests at hand.

    Raises:
        OpenBindError: see `check_binding`.
        RedisUrlMissingError: no Redis is configured.
        CallersFileError: `GAMMA_CALLERS_FILE` cannot be used.
        StorageSetupError: what `GAMMA_STORE` needs is not installed.
        PortError: a port is taken.
    """
    check_binding(settings)
    check_port(settings.host, settings.port, "GAMMA_PORT")
    check_port(settings.metrics_host, settings.metrics_port, "GAMMA_METRICS_PORT")
    _return_freed_memory()
    metrics.expose(settings)
    descriptors.provide(settings)
    BoundedProtocol.timeout = settings.request_timeout
    BoundedProtocol.max_connections = settings.max_connections
    BoundedProtocol.link_root = settings.root_path or ""
    uvicorn.run(
        create_app(settings),
        http=BoundedProtocol,
        ws="none",
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN,
        timeout_keep_alive=_KEEP_ALIVE,
    )
