"""HTTP/1.1 as uvicorn speaks it, with limits for those who have not said yet what they want.

What a key, a route or a limit of ours decides is decided once the head of a request is there. Until
then only this stands between a stranger and the memory of the process.
"""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus
from typing import ClassVar

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.middleware import REQUEST_ID_HEADER
from app.problems import MEDIA_TYPE, ServiceError, describe
from app.schemas import ErrorCode

MAX_HEAD = 64 * 1024  # bytes: request line and header fields

log = structlog.get_logger()


class BoundedProtocol(HttpToolsProtocol):
    """Ends a connection whose request head is too long, or that is silent in the midst of one."""

    patience: ClassVar[float]
    """Seconds for the whole head of a request, and for each further piece of its body."""

    _received = 0  # bytes of the head at hand
    _in_head = _in_body = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; the first head is waited for."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, within the limits."""
        super().data_received(data)
        if self._in_head:
            self._received += len(data)
            if self._received > MAX_HEAD:
                self._stop_waiting()
                self._refuse(
                    ErrorCode.HEAD_TOO_LARGE, f"The limit of a request's head is {MAX_HEAD} bytes."
                )
        elif self._in_body:
            self._wait()

    def on_message_begin(self) -> None:
        """As uvicorn's."""
        super().on_message_begin()
        self._in_head, self._received = True, 0
        self._wait()

    def on_headers_complete(self) -> None:
        """As uvicorn's."""
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """As uvicorn's."""
        self._in_body = False
        self._stop_waiting()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, in the form of all our refusals."""
        self._stop_waiting()
        self._refuse(ErrorCode.MALFORMED_REQUEST, msg)

    def _refuse(self, code: ErrorCode, detail: str) -> None:
        request_id = uuid.uuid4().hex
        problem = describe(ServiceError(code, detail), request_id)
        body = problem.model_dump_json(exclude_none=True)
        lines = [
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
            f"content-type: {MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"{REQUEST_ID_HEADER}: {request_id}",
            "x-content-type-options: nosniff",
            "connection: close",
        ]
        log.info("request_refused", request_id=request_id, code=code)
        self.transport.write("\r\n".join([*lines, "", body]).encode())
        self.transport.close()

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.patience, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self._in_body and self.flow.read_paused:  # it is we who do not read
            self._wait()
        elif not self.transport.is_closing():
            self.transport.close()
