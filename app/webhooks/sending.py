"""HTTP requests to receivers: to allowed addresses only, with a timeout, without redirects."""

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
    """The receiver did not answer; the message says why."""


class Sender:
    """Posts to receivers. Thread-safe."""

    def __init__(self, targets: Targets, timeout: float) -> None:
        self._targets = targets
        self._timeout = timeout
        self._tls: ssl.SSLContext = httpx2.create_ssl_context()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post `body` over a new connection.

        Proxy variables are ignored, because a proxy would resolve the host again.

        Args:
            url: checked again, because the rules may have changed since it was accepted.
            body: JSON.
            headers: additional header fields.

        Returns:
            HTTP status of the response, whose body is not read.

        Raises:
            TargetRefusedError: If the URL or an address of its host is not allowed.
            NoAnswerError: If there is no response within the timeout, which covers all steps.
        """
        try:
            return asyncio.run(self._post(httpx2.URL(self._targets.check(url)), body, headers))
        except TimeoutError:
            raise NoAnswerError(f"no answer within {self._timeout:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            # The message may contain data of the receiver, of any length.
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
                ssl_context=self._tls, network_backend=CheckedAddresses(self._targets)
            ) as pool,
            pool.stream("POST", target, headers=sent, content=body) as response,
        ):
            return response.status


class CheckedAddresses(httpcore2.AsyncNetworkBackend):
    """Resolves names, and connects to allowed addresses only.

    TLS still verifies the host of the URL, which httpcore passes when it starts TLS.
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
        """Connect to the first address of the host that answers.

        Raises:
            TargetRefusedError: If an address is not allowed.
            httpcore2.NetworkError: If no address answers.
            OSError: If the host has no address.
        """
        last: Exception = OSError("the host has no address")
        for address in await self._targets.resolve(host, port):
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore2.NetworkError as error:
                last = error
        raise last
