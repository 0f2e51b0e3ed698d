"""Rules for the URLs of webhooks and fetches, and for the addresses that hosts resolve to.

URLs are checked when they are submitted, addresses before each request. The connection uses the
checked address, which prevents DNS rebinding.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import partial

import anyio.to_thread
import httpx2
from anyio import CapacityLimiter

from app.contract.addresses import Allowlist, address_of, is_host_name, is_public

MAX_URL = 2048  # characters
_MIN_PORT = 1024  # apart from 443, so that no mail or time server can be reached
_MAX_PORT = 65535


class TargetRefusedError(ValueError):
    """A target is not allowed; the message is written for the caller."""


class Targets:
    """The rules for targets, with the configured exceptions."""

    def __init__(self, allowlist: Allowlist | None, limiter: CapacityLimiter | None = None) -> None:
        """Set the rules.

        Args:
            allowlist: exceptions.
            limiter: limits the threads that resolve names; None: the process's default.
        """
        self._allowlist = allowlist or Allowlist()
        self._limiter = limiter

    def check(self, url: str) -> str:
        """Check and normalise a URL, without DNS.

        Raises:
            TargetRefusedError: If the URL is invalid or not allowed.
        """
        if len(url) > MAX_URL:
            raise TargetRefusedError(f"The URL has more than {MAX_URL} characters.")
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, UnicodeError):
            raise TargetRefusedError("The URL is invalid.") from None
        if parsed.scheme not in ("https", "http") or not parsed.raw_host:
            raise TargetRefusedError("The URL must be an https URL with a host.")
        if parsed.userinfo:
            raise TargetRefusedError("The URL must not contain a user name or password.")
        host = parsed.raw_host.decode("ascii").lower().removesuffix(".")
        port = 443 if parsed.port is None else parsed.port
        if not self._is_allowed(host):
            _check_host(host)
            if parsed.scheme != "https":
                raise TargetRefusedError("Plain http is not allowed; use https.")
            if port != 443 and port < _MIN_PORT:
                raise TargetRefusedError(f"The port must be 443, or {_MIN_PORT} and above.")
        if port > _MAX_PORT:
            raise TargetRefusedError(f"The port must not be above {_MAX_PORT}.")
        return str(parsed.copy_with(host=host, fragment=None))

    async def resolve(self, host: str, port: int) -> list[str]:
        """Resolve a host and check all of its addresses.

        Raises:
            TargetRefusedError: If an address is not allowed.
            OSError: If the host cannot be resolved.
        """
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            # Abandoned on timeout, because getaddrinfo takes none.
            found = await anyio.to_thread.run_sync(
                look_up, abandon_on_cancel=True, limiter=self._limiter
            )
        except UnicodeError:
            raise TargetRefusedError(f"The host name {host} is invalid.") from None
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if host not in self._allowlist.hosts:
            for address in map(ipaddress.ip_address, addresses):
                if not is_public(address) and not self._allowlist.contains(address):
                    # The address is omitted, because it would disclose the internal network.
                    raise TargetRefusedError(f"{host} resolves to an address that is not public.")
        return addresses

    def _is_allowed(self, host: str) -> bool:
        address = address_of(host)
        if address is None:
            return host in self._allowlist.hosts
        return self._allowlist.contains(address)


def _check_host(host: str) -> None:
    address = address_of(host)
    if address is not None:
        if not is_public(address):
            raise TargetRefusedError("The address is not public.")
    elif not is_host_name(host):
        raise TargetRefusedError("The host name is invalid.")
    elif "." not in host or host.endswith(".localhost"):
        raise TargetRefusedError("The host is not public.")
