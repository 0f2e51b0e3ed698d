"""`gamma api`: the HTTP server."""

from __future__ import annotations

import contextlib
import ctypes

import uvicorn

from app.contract.ports import check_port
from app.contract.settings import Settings
from app.http import descriptors, metrics
from app.http.api import create_app
from app.http.binding import check_binding
from app.http.protocol import BoundedProtocol

_DRAIN = 70  # s; longer than the longest `Prefer: wait`
_M_MMAP_THRESHOLD = -3  # malloc.h
_KEEP_ALIVE = 75  # s; longer than the idle time of common load balancers


def _return_freed_memory() -> None:
    """Make glibc return large freed blocks to the system.

    By default its mmap threshold grows to 32 MiB (mallopt(3), M_MMAP_THRESHOLD), and each
    thread's arena keeps freed blocks: hundreds of MiB after some large uploads.
    """
    with contextlib.suppress(AttributeError, OSError):  # C libraries other than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then finish open requests.

    Raises:
        OpenBindError: If an address other than loopback is bound without keys.
        RedisUrlMissingError: If no Redis is configured.
        CallersFileError: If `GAMMA_CALLERS_FILE` is invalid.
        StorageSetupError: If `GAMMA_STORE` is set and the extra `s3` is not installed.
        DatabaseUrlError: If `GAMMA_DATABASE_URL` is invalid.
        PortError: If a port is in use.
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
