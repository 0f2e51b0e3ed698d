"""Fetching of pictures by URL: from public addresses only, within limits of time and size.

The rules are those of webhook targets: the connection goes to an address that was checked, and
each redirect is checked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from functools import cached_property
from importlib.metadata import version

import httpcore2
import httpx2
from anyio import CapacityLimiter

from app.contract.schemas import ErrorCode
from app.contract.settings import Settings
from app.http.problems import ServiceError
from app.webhooks.sending import CheckedAddresses
from app.webhooks.targets import TargetRefusedError, Targets

FETCHES = 8
"""Maximum number of simultaneous fetches."""

USER_AGENT = f"GAMMA/{version('gamma-detect')} (fetch)"

_TIMEOUT = 15.0  # s, for all steps
_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_OK = 200
_MAX_TYPE = 100  # characters of a content type in the message


class Fetcher:
    """Fetches pictures, if `GAMMA_FETCH` is on."""

    def __init__(self, settings: Settings) -> None:
        self._on = settings.fetch
        # Own threads for DNS, so that slow name servers block no other requests.
        self._targets = Targets(settings.fetch_allow, CapacityLimiter(FETCHES))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()

    async def fetch(self, url: str) -> AsyncGenerator[bytes, None]:
        """The picture in pieces; the reader must limit their total size.

        Proxy variables are ignored, because a proxy would resolve the host again.

        Raises:
            ServiceError: If the URL or an address is not allowed, or fetching is off
                (`fetch_refused`); if there is no picture within 15 s (`fetch_failed`).
        """
        if not self._on:
            raise ServiceError(ErrorCode.FETCH_REFUSED, "Fetching is off (GAMMA_FETCH).")
        ends = asyncio.get_running_loop().time() + _TIMEOUT
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, network_backend=CheckedAddresses(self._targets)
        )
        try:
            async with pool, contextlib.AsyncExitStack() as stack:
                # No time limit is open at a `yield`, where it would cancel the reader.
                async with asyncio.timeout_at(ends):
                    response = await self._open(pool, stack, url)
                _check(response)
                chunks = aiter(response.aiter_stream())
                while True:
                    async with asyncio.timeout_at(ends):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
        except TargetRefusedError as error:
            raise ServiceError(ErrorCode.FETCH_REFUSED, str(error)) from None
        except TimeoutError:
            raise _failed(f"it did not arrive within {_TIMEOUT:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError):
            # The message may hold data of the host, so it is not repeated.
            raise _failed("the host does not answer, or the connection ended") from None

    async def _open(
        self, pool: httpcore2.AsyncConnectionPool, stack: contextlib.AsyncExitStack, url: str
    ) -> httpcore2.Response:
        """The answer behind all redirects.

        Raises:
            TargetRefusedError: If a URL or an address is not allowed.
            ServiceError: If a redirect is invalid, or there are too many (`fetch_failed`).
        """
        for _ in range(1 + _MAX_REDIRECTS):
            checked = httpx2.URL(self._targets.check(url))
            asked = pool.stream("GET", _target(checked), headers=_HEADERS)
            response = await stack.enter_async_context(asked)
            if response.status not in _REDIRECTS:
                return response
            try:
                url = str(checked.join(_field(response, b"location")))
            except (httpx2.InvalidURL, ValueError):
                raise _failed("the redirect is invalid") from None
        raise _failed(f"more than {_MAX_REDIRECTS} redirects")


_HEADERS = [("user-agent", USER_AGENT), ("accept", "image/*"), ("accept-encoding", "identity")]


def _target(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _field(response: httpcore2.Response, wanted: bytes) -> str:
    values = [value for name, value in response.headers if name.lower() == wanted]
    return values[0].decode("latin-1") if values else ""


def _check(response: httpcore2.Response) -> None:
    """Check status and content type.

    Raises:
        ServiceError: If the answer is no picture: `fetch_failed`.
    """
    if response.status != _OK:
        raise _failed(f"the answer has status {response.status}")
    kind = _field(response, b"content-type").partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        shown = kind[:_MAX_TYPE] if kind.isprintable() else "of an unknown type"
        raise _failed(f"the answer is {shown}, not a picture")


def _failed(why: str) -> ServiceError:
    return ServiceError(ErrorCode.FETCH_FAILED, f"The picture could not be fetched: {why}.")
