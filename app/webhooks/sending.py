"""One HTTP request to a receiver: to a checked address, within a time limit, without redirects."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import httpcore2
import httpx2

from app.webhooks.targets import Targets

USER_AGENT = f"GAMMA/{version('gamma-detect')} (webhook)"

_LONGEST_REASON = 200  # characters


class NoAnswerError(Exception):
    """The receiver did not answer; the message says how far it came."""


class Sender:
    """Posts to receivers. Safe to share between threads."""

    def __init__(self, targets: Targets, timeout: float) -> None:
        self._targets = targets
        self._timeout = timeout
        self._tls: ssl.SSLContext = httpx2.create_ssl_context()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send `body` and return the status of the answer, whose body is not read.

        A connection is used once. Proxies of the environment are not used: they would look the
        host up again.

        Args:
            url: is checked again, for the rules may have changed since it was accepted.
            body: JSON.
            headers: beside those of every request.

        Raises:
            TargetRefusedError: the URL, or what its host resolves to, is not allowed.
            NoAnswerError: no answer within the time limit, which covers everything.
        """
        try:
            return asyncio.run(self._post(httpx2.URL(self._targets.check(url)), body, headers))
        except TimeoutError:
            raise NoAnswerError(f"no answer within {self._timeout:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            # What a stranger sent may be in it, of any length.
            raise NoAnswerError(f"{type(error).__name__}: {error}"[:_LONGEST_REASON]) from error

    async def _post(self, url: httpx2.URL, body: bytes, headers: Mapping[str, str]) -> int:
        target = httpcore2.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        sent = [
            ("content-type", "application/json"),
            ("user-agent", USER_AGENT),
            *headers.items(),
        ]
        async with (
            asyncio.timeout(self._timeout),
            httpcore2.AsyncConnectionPool(
                ssl_context=self._tls, network_backend=_CheckedAddresses(self._targets)
            ) as pool,
            pool.stream("POST", target, headers=sent, content=body) as response,
        ):
            return response.status


class _CheckedAddresses(httpcore2.AsyncNetworkBackend):
    """Resolves names by the rules, and connects to what was checked.

    TLS still asks for the host of the URL: httpcore names it when it starts TLS on the stream.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of httpcore
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of the host that answers."""
        last: Exception = OSError("the host has no address")
        for address in await self._targets.resolve(host, port):
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore2.NetworkError as error:
                last = error
        raise last
