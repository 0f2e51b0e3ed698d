"""Where a webhook may go: rules for its URL, and for every address its host resolves to.

What a URL shows is refused when it is given; what only the name service knows, when it is used.
The address that was checked is the one that is connected to, so that a name cannot mean something
else a moment later.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import partial

import anyio.to_thread
import httpx2

from app.contract.addresses import Exceptions, address_of, is_host_name, is_public

MAX_URL = 2048  # characters
_LOWEST_PORT = 1024  # below it only 443: no mail server, no time server
_HIGHEST_PORT = 65535


class TargetRefusedError(ValueError):
    """A webhook may not go there; the message says why, in words for the caller."""


class Targets:
    """The rules, with the exceptions of this installation."""

    def __init__(self, exceptions: Exceptions | None) -> None:
        self._exceptions = exceptions or Exceptions()

    def check(self, url: str) -> str:
        """The URL in its normal form, if it is not plainly wrong. Asks no name service.

        Raises:
            TargetRefusedError: see the message.
        """
        if len(url) > MAX_URL:
            raise TargetRefusedError(f"The URL has more than {MAX_URL} characters.")
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, UnicodeError):
            raise TargetRefusedError("This is not a URL.") from None
        if parsed.scheme not in ("https", "http") or not parsed.raw_host:
            raise TargetRefusedError("An https URL with a host is needed.")
        if parsed.userinfo:
            raise TargetRefusedError("The URL must not hold a user name or password.")
        host = parsed.raw_host.decode("ascii").lower().removesuffix(".")
        port = 443 if parsed.port is None else parsed.port
        if not self._excepted(host):
            _check_host(host)
            if parsed.scheme != "https":
                raise TargetRefusedError("Plain http is not allowed; use https.")
            if port != 443 and port < _LOWEST_PORT:
                raise TargetRefusedError(f"The port must be 443, or {_LOWEST_PORT} and above.")
        if port > _HIGHEST_PORT:
            raise TargetRefusedError("There is no such port.")
        return str(parsed.copy_with(host=host, fragment=None))

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them checked.

        Raises:
            TargetRefusedError: one of them is not public.
            OSError: it has none.
        """
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            # Abandoned when the time is up: the name service has time limits of its own.
            found = await anyio.to_thread.run_sync(look_up, abandon_on_cancel=True)
        except UnicodeError:
            raise TargetRefusedError(f"{host} is not a host name.") from None
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if host not in self._exceptions.hosts:
            for address in map(ipaddress.ip_address, addresses):
                if not is_public(address) and not self._exceptions.hold(address):
                    # The address stays untold: it would describe our network to a stranger.
                    raise TargetRefusedError(f"{host} has an address that is not public.")
        return addresses

    def _excepted(self, host: str) -> bool:
        address = address_of(host)
        if address is None:
            return host in self._exceptions.hosts
        return self._exceptions.hold(address)


def _check_host(host: str) -> None:
    address = address_of(host)
    if address is not None:
        if not is_public(address):
            raise TargetRefusedError("The address is not a public one.")
    elif not is_host_name(host):
        raise TargetRefusedError("This is not a host name.")
    elif "." not in host or host.endswith(".localhost"):
        raise TargetRefusedError("The host is not a public one.")
