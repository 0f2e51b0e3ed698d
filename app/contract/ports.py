"""Ports of this machine: whether they can be had, and how a process of the service asks another."""

from __future__ import annotations

import errno
import socket
from http.client import HTTPConnection, HTTPException

_TIMEOUT = 5  # s
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, never bound


class PortError(OSError):
    """A port cannot be listened on.

    Attributes:
        taken: by another process.
        found: what is wrong.
        advice: what to do.
    """

    def __init__(self, found: str, advice: str, *, taken: bool) -> None:
        super().__init__(f"{found}: {advice}")
        self.found = found
        self.advice = advice
        self.taken = taken


def check_port(host: str, port: int, variable: str, above: int = 0) -> None:
    """See that a port is free; it is not kept.

    Args:
        host: address, or a name of one.
        port: the port of the setting.
        variable: the setting.
        above: looks at the port so many numbers higher.

    Raises:
        PortError: it is not.
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
            others = "; ports above it are used too" if above else ""
            raise PortError(
                f"port {port} ({setting}) is taken by another program",
                f"end that (`ss -ltnp 'sport = :{port}'` names it), or set {variable} to a free "
                f"port{others}",
                taken=True,
            ) from None
        raise PortError(
            f"{host} port {port} ({setting}) cannot be used: {error.strerror}",
            "name an address of this machine; ports below 1024 are for root",
            taken=False,
        ) from None


def ask(host: str, port: int, path: str) -> tuple[int, str]:
    """GET from a process of the service; proxies that the environment names are not used.

    Args:
        host: as the process binds it; one that stands for all addresses is asked on loopback.
        port: of the process.
        path: begins with a slash.

    Returns:
        Status and body.

    Raises:
        OSError: no answer within 5 s, or none that is HTTP.
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
