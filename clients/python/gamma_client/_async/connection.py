"""Requests with retries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx2
from pydantic import BaseModel
from tenacity import AsyncRetrying

from gamma_client._async.runtime import sleep
from gamma_client.calls import INTERRUPTIONS, Call, agent, bearer, retrying
from gamma_client.errors import check, parse

Model = TypeVar("Model", bound=BaseModel)

_RECONNECT = 1  # s, after a stream of events


class AsyncConnection:
    """Connections to a service, and how long to try."""

    def __init__(
        self, address: str, key: str | None, patience: float, http: httpx2.AsyncClient
    ) -> None:
        self._address = address.rstrip("/")
        self._headers = {"User-Agent": agent()}
        if key:
            self._headers["Authorization"] = bearer(key)
        self._patience = patience
        self._http = http

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def read(self, call: Call, model: type[Model]) -> Model:
        """Send a request whose answer is JSON; arguments and errors as in `send`."""
        return parse(await self.send(call), model)

    async def send(self, call: Call) -> httpx2.Response:
        """Send a request; repeat it while the service is busy or unreachable.

        Only requests that do nothing twice are repeated.

        Raises:
            ServiceError: If it is refused.
            httpx2.HTTPError: If the connection fails, or an answer takes too long.
            OSError: If a picture's file cannot be read.
        """
        return await AsyncRetrying(**retrying(call, self._patience))(self._once, call)

    async def save(self, call: Call, target: str | os.PathLike[str]) -> None:
        """Save the body of an answer; the file is there only once it is complete."""
        await AsyncRetrying(**retrying(call, self._patience))(self._save, call, Path(target))

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx2.Response]:
        """Send a request once; the body of the answer is read while the context is open."""
        with call.arguments() as arguments:
            arguments["headers"] |= self._headers
            address = self._address + call.path
            async with self._http.stream(call.method, address, **arguments) as response:
                if not response.is_success:
                    await response.aread()
                    check(response)
                yield response

    async def events(self, path: str, after: str | None) -> AsyncIterator[httpx2.ServerSentEvent]:
        """Follow a stream of Server-Sent Events; connect again when it ends or breaks."""
        position = after
        while True:
            headers = {} if position is None else {"Last-Event-ID": position}
            call = Call(method="GET", path=path, headers=headers)
            async with AsyncExitStack() as opened:
                response: httpx2.Response = await AsyncRetrying(**retrying(call, self._patience))(
                    self._open, call, opened
                )
                with suppress(*INTERRUPTIONS):
                    async for event in httpx2.EventSource(response):
                        position = event.id or position
                        if event.data:
                            yield event
            await sleep(_RECONNECT)

    async def _once(self, call: Call) -> httpx2.Response:
        async with self.stream(call) as response:
            await response.aread()
        return response

    async def _open(self, call: Call, opened: AsyncExitStack) -> httpx2.Response:
        return await opened.enter_async_context(self.stream(call))

    async def _save(self, call: Call, target: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as file:
                async with self.stream(call) as response:
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
