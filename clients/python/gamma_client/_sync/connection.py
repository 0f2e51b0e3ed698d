# Generated from _async/connection.py by generate.py.
"""Requests with retries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx2
from pydantic import BaseModel
from tenacity import Retrying

from gamma_client._sync.runtime import sleep
from gamma_client.calls import INTERRUPTIONS, Call, agent, bearer, retrying
from gamma_client.errors import check, parse

Model = TypeVar("Model", bound=BaseModel)

_RECONNECT = 1  # s, after a stream of events


class Connection:
    """Connections to a service, and how long to try."""

    def __init__(self, address: str, key: str | None, patience: float, http: httpx2.Client) -> None:
        self._address = address.rstrip("/")
        self._headers = {"User-Agent": agent()}
        if key:
            self._headers["Authorization"] = bearer(key)
        self._patience = patience
        self._http = http

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def read(self, call: Call, model: type[Model]) -> Model:
        """Send a request whose answer is JSON; arguments and errors as in `send`."""
        return parse(self.send(call), model)

    def send(self, call: Call) -> httpx2.Response:
        """Send a request; repeat it while the service is busy or unreachable.

        Only requests that do nothing twice are repeated.

        Raises:
            ServiceError: If it is refused.
            httpx2.HTTPError: If the connection fails, or an answer takes too long.
            OSError: If a picture's file cannot be read.
        """
        return Retrying(**retrying(call, self._patience))(self._once, call)

    def save(self, call: Call, target: str | os.PathLike[str]) -> None:
        """Save the body of an answer; the file is there only once it is complete."""
        Retrying(**retrying(call, self._patience))(self._save, call, Path(target))

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx2.Response]:
        """Send a request once; the body of the answer is read while the context is open."""
        with call.arguments() as arguments:
            arguments["headers"] |= self._headers
            address = self._address + call.path
            with self._http.stream(call.method, address, **arguments) as response:
                if not response.is_success:
                    response.read()
                    check(response)
                yield response

    def events(self, path: str, after: str | None) -> Iterator[httpx2.ServerSentEvent]:
        """Follow a stream of Server-Sent Events; connect again when it ends or breaks."""
        position = after
        while True:
            headers = {} if position is None else {"Last-Event-ID": position}
            call = Call(method="GET", path=path, headers=headers)
            with ExitStack() as opened:
                response: httpx2.Response = Retrying(**retrying(call, self._patience))(
                    self._open, call, opened
                )
                with suppress(*INTERRUPTIONS):
                    for event in httpx2.EventSource(response):
                        position = event.id or position
                        if event.data:
                            yield event
            sleep(_RECONNECT)

    def _once(self, call: Call) -> httpx2.Response:
        with self.stream(call) as response:
            response.read()
        return response

    def _open(self, call: Call, opened: ExitStack) -> httpx2.Response:
        return opened.enter_context(self.stream(call))

    def _save(self, call: Call, target: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as file:
                with self.stream(call) as response:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
