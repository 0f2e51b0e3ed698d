"""HTTP/1.1 as uvicorn speaks it, with limits on what a connection costs before a route answers.

What a key, a route or a limit of ours decides is decided once the head of a request is there. Until
then only this stands between a stranger and the memory of the process.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import ClassVar, cast

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.contract.schemas import ROOT_PATH, ErrorCode
from app.http.metrics import REJECTIONS
from app.http.middleware import REQUEST_ID_HEADER
from app.http.problems import MEDIA_TYPE, ServiceError, describe

MAX_HEAD = 64 * 1024
"""Bytes of a request line and its header fields; also of what stands between two pieces of a body,
and after it (chunk extensions, trailer fields)."""

MAX_TARGET = 8 * 1024
"""Bytes of a path with its query."""

MAX_FIELDS = 128
"""Header fields of a request."""

MAX_PIECES = 1000
"""Chunks of a body that are taken from one read, which has 250 kB at most."""

MIN_RATE = 16 * 1024
"""Bytes/s at which a body has to come, and an answer to be read, averaged over
`BoundedProtocol.timeout`."""

_LINGER = 5.0  # s; how long what still comes is read after the last answer, or that would get lost
_LINGER_BYTES = 2**20  # as above; beyond, the sender is left waiting

_EXHAUSTION_INTERVAL = 60.0  # s, between log lines

log = structlog.get_logger()


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections whose requests are too long, too slow or damaged, and limits their number.

    One request is read at a time: what comes before the answer to the one before is not read, and
    the connection ends with that answer (RFC 9112, 9.3.2: the client sends the others again).
    A body that the answer did not wait for is not waited for either.
    """

    timeout: ClassVar[float]
    """Seconds for the whole head of a request; see `MIN_RATE` for its body."""
    max_connections: ClassVar[int]
    """Open connections; beyond, the one that has been idle for longest is closed."""
    link_root: ClassVar[str] = ""  # uvicorn has a `root_path` of its own
    """What links in refusals begin with."""

    _next_word: ClassVar[float] = 0.0  # when to log again that all are in use

    _kept = 0  # bytes since the request began, or since its last piece of body
    _arrived = 0  # bytes in this period of `timeout` seconds
    _pieces = 0  # of a body, in what was read last
    _held_up = False  # in this period we have not read all the time
    _in_head = _in_body = False
    _keep_alive = False  # what the request at hand asks for
    _deaf = False  # whatever still comes is not read
    _dropped = 0  # bytes that came since then
    _idle_since = 0.0
    _timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; the first head is waited for."""
        full = len(self.connections) >= self.max_connections
        super().connection_made(transport)
        self._idle_since = time.monotonic()
        self._last_word = cast(asyncio.Transport, _LastWord(self))
        self._begin_period()
        if full:
            self._tell_of_exhaustion()
        if full and not self._make_room():
            self._refuse(
                ErrorCode.TOO_MANY_CONNECTIONS, f"{self.max_connections} connections are open."
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._stop_waiting()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, within the limits."""
        if self._deaf:
            self._drop(data)
            return
        self._unset_keepalive_if_required()
        self._arrived += len(data)
        self._pieces = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # it may be ignored (RFC 9110, 7.8)
            pass
        except httptools.HttpParserError:
            self._refuse(ErrorCode.MALFORMED_REQUEST, "The request is not valid HTTP/1.1.")
        else:
            self._held_up |= self.flow.read_paused
            self._kept = 0 if self._pieces else self._kept + len(data)
            if (self._in_head or self._in_body) and self._kept > MAX_HEAD:
                self._refuse(
                    ErrorCode.HEAD_TOO_LARGE, f"The limit for a request's head is {MAX_HEAD} bytes."
                )

    def on_message_begin(self) -> None:
        """As uvicorn's.

        A client may have read an answer to its end before the route has come to its own end.

        Raises:
            RuntimeError: the request before has no answer yet. It ends the parsing.
        """
        answered = self.cycle is None or self.cycle.response_started
        if not answered or self.pipeline:
            self._stop_listening()
        super().on_message_begin()
        self._in_head, self._kept = True, 0
        self._begin_period()

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's, but trailer fields are left out: they must not pass for header fields.

        Raises:
            OverflowError: there are too many. It ends the parsing.
        """
        if not self._in_head:
            return
        if len(self.headers) == MAX_FIELDS:
            self._refuse(ErrorCode.HEAD_TOO_LARGE, f"The limit is {MAX_FIELDS} header fields.")
            raise OverflowError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """As uvicorn's. Whoever answers before the body is there ends the connection.

        Raises:
            OverflowError: the path is too long. It ends the parsing.
            ValueError: there are several Host fields (RFC 9112, 3.2). It ends the parsing.
        """
        if len(self.url) > MAX_TARGET:
            self._refuse(
                ErrorCode.HEAD_TOO_LARGE,
                f"The limit for a path with its query is {MAX_TARGET} bytes.",
            )
            raise OverflowError
        if [name for name, _ in self.headers].count(b"host") > 1:
            self._refuse(ErrorCode.MALFORMED_REQUEST, "A request must have exactly one Host field.")
            raise ValueError
        self._in_head = False
        super().on_headers_complete()
        self._in_body = True
        self.cycle.transport = self._last_word
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_body(self, body: bytes) -> None:
        """As uvicorn's.

        Raises:
            RuntimeError: the request before has no full answer yet. It ends the parsing.
            OverflowError: it comes in crumbs. It ends the parsing.
        """
        if self.pipeline:
            self._stop_listening()
        self._pieces += 1
        if self._pieces > MAX_PIECES:
            self._refuse(ErrorCode.MALFORMED_REQUEST, "The chunks of the body are too small.")
            raise OverflowError
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As uvicorn's."""
        self._in_body = False
        self._stop_waiting()
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's."""
        self._idle_since = time.monotonic()
        super().on_response_complete()
        if self._deaf:
            self.leave()

    def pause_writing(self) -> None:
        """As uvicorn's; whoever does not read its answer is not waited for."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """As uvicorn's."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().resume_writing()

    def shutdown(self) -> None:
        """As uvicorn's."""
        self._keep_alive = False
        super().shutdown()

    def leave(self) -> None:
        """End the connection after what was written.

        While something is still sent to us, it is read for a while: closing at once would make TCP
        drop the answer on its way.
        """
        self._stop_waiting()
        if self.transport.is_closing() or not (self._in_body or self._deaf):
            self.transport.close()
            return
        self._deaf = True
        if self.cycle is not None:
            self.cycle.body = bytearray()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._wait(_LINGER, self.transport.close)

    def _stop_listening(self) -> None:
        """Answer the request at hand, and none that comes after it."""
        self._deaf = True
        self._stop_waiting()
        self.pipeline.clear()
        self.cycle.keep_alive = False
        raise RuntimeError

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > _LINGER_BYTES:
            self.transport.pause_reading()

    def _refuse(self, code: ErrorCode, detail: str) -> None:
        """Answer without a route, unless another answer is under way; then leave."""
        if self._deaf:
            return
        self._deaf = True
        ours = True
        if self.cycle is not None and not self.cycle.response_complete:
            ours = not self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if ours:
            self.transport.write(_refusal(code, detail, self.link_root))
        self.leave()

    def _tell_of_exhaustion(self) -> None:
        """Log that all connections are in use, once in a while."""
        now = time.monotonic()
        if now >= BoundedProtocol._next_word:
            BoundedProtocol._next_word = now + _EXHAUSTION_INTERVAL
            log.warning(
                "connections_exhausted",
                limit=self.max_connections,
                hint="idle ones are closed, others refused; GAMMA_MAX_CONNECTIONS, or a proxy "
                "that limits them for each client",
            )

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, or was answered; if there is one."""
        connections = cast(set[BoundedProtocol], self.connections) - {self}
        idle = [one for one in connections if one.cycle is None or one.cycle.response_complete]
        if idle:
            min(idle, key=lambda one: one._idle_since).transport.abort()
        return bool(idle)

    def _begin_period(self) -> None:
        self._arrived, self._held_up = 0, self.flow.read_paused
        self._wait(self.timeout, self._end_period)

    def _end_period(self) -> None:
        held_up = self._held_up or self.flow.read_paused
        if self._in_body and (held_up or self._arrived >= self.timeout * MIN_RATE):
            self._begin_period()
        else:
            self.transport.close()

    def _watch_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()

        def check() -> None:
            if unread - self.transport.get_write_buffer_size() < self.timeout * MIN_RATE:
                self.transport.abort()
            else:
                self._watch_reader()

        self._reader_timer = self.loop.call_later(self.timeout, check)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _LastWord:
    """The part of a transport that uvicorn's answers use; its end is that of the protocol."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        self._protocol.leave()


def _refusal(code: ErrorCode, detail: str, root_path: str) -> bytes:
    request_id = uuid.uuid4().hex
    problem = describe(ServiceError(code, detail), request_id)
    body = problem.model_dump_json(exclude_none=True, context={ROOT_PATH: root_path})
    lines = [
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        f"{REQUEST_ID_HEADER}: {request_id}",
        "x-content-type-options: nosniff",
        "connection: close",
    ]
    if problem.retry_after is not None:
        lines.append(f"retry-after: {problem.retry_after}")
    log.info("request_refused", request_id=request_id, code=code)
    REJECTIONS.labels(code).inc()
    return "\r\n".join([*lines, "", body]).encode()
