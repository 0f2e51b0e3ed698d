"""Ports of this machine: checks before listening, and requests between processes."""

from __future__ import annotations

import errno
import socket
from http.client import HTTPConnection, HTTPException

_TIMEOUT = 5  # s
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, never bound


class PortError(OSError):
    """A port cannot be used for listening.

    Attributes:
        taken: whether another process uses it.
        found: the problem.
        advice: how to fix it.
    """

    def __init__(self, found: str, advice: str, *, taken: bool) -> None:
        super().__init__(f"{found}: {advice}")
        self.found = found
        self.advice = advice
        self.taken = taken


def check_port(host: str, port: int, variable: str, above: int = 0) -> None:
    """Check that a port is free, without keeping it.

    Args:
        host: address or host name to bind.
        port: value of the setting.
        variable: name of the setting.
        above: offset of the port to check from `port`.

    Raises:
        PortError: If the port is in use or cannot be bound.
    """
    port += above
    setting = f"{variable} + {above}" if above else variable
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            others = "; the ports above it are used too" if above else ""
            raise PortError(
                f"port {port} ({setting}) is in use by another program",
                f"stop it (`ss -ltnp 'sport = :{port}'` shows it), or set {variable} to a free "
                f"port{others}",
                taken=True,
            ) from None
        raise PortError(
            f"{host} port {port} ({setting}) cannot be used: {error.strerror}",
            "choose an address of this machine; ports below 1024 need root",
            taken=False,
        ) from None


def ask(host: str, port: int, path: str) -> tuple[int, str]:
    """Send a GET request to a process of the service, ignoring proxy variables.

    Args:
        host: address that the process binds; a wildcard address means loopback.
        port: port of the process.
        path: path with a leading slash.

    Returns:
        HTTP status and body.

    Raises:
        OSError: If there is no valid response within 5 s.
    """
    connection = HTTPConnection(_WILDCARDS.get(host, host), port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except HTTPException as error:
        raise ConnectionError(repr(error)) from error
    finally:
        connection.close()
