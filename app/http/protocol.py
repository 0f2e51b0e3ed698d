"""uvicorn's HTTP/1.1 protocol with limits on size, speed and number of connections.

These limits protect the process before keys and routes are checked, which needs the whole head.
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
"""Maximum size of a request line and its header fields in bytes; also of chunk extensions and
trailer fields."""

MAX_TARGET = 8 * 1024
"""Maximum length of a path with its query in bytes."""

MAX_FIELDS = 128
"""Maximum number of header fields."""

MAX_CHUNKS = 1000
"""Maximum number of chunks of a body in one read, which returns up to 250 kB."""

MIN_RATE = 16 * 1024
"""Minimum rate of sending a body and of reading a response in bytes/s, averaged over
`BoundedProtocol.timeout`."""

_LINGER = 5.0  # s; data that arrives after the response is discarded so long (lingering close)
_LINGER_BYTES = 2**20  # maximum number of discarded bytes

_LOG_INTERVAL = 60.0  # s

log = structlog.get_logger()


class BoundedProtocol(HttpToolsProtocol):
    """Limits the number of connections, and closes those with too long, slow or invalid requests.

    Pipelining is not supported: after a request that arrives early, the connection is closed with
    the current response (RFC 9112, 9.3.2). A body that the response did not wait for is discarded.
    """

    timeout: ClassVar[float]
    """Seconds for the whole head of a request; see `MIN_RATE` for its body."""
    max_connections: ClassVar[int]
    """Maximum number of connections; above it the one that is idle for longest is closed."""
    link_root: ClassVar[str] = ""  # uvicorn's protocol has another `root_path`
    """Prefix of links in problem documents."""

    _next_log: ClassVar[float] = 0.0  # time of the next warning about connections

    _kept = 0  # bytes since the start of the request or its last chunk of body
    _arrived = 0  # bytes in this period of `timeout` seconds
    _chunks = 0  # chunks in the last read
    _was_paused = False  # reading was paused in this period
    _in_head = _in_body = False
    _keep_alive = False  # whether the current request asks for it
    _discarding = False  # whether incoming data is discarded
    _discarded = 0  # discarded bytes
    _idle_since = 0.0
    _timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; starts the timeout of the first head."""
        full = len(self.connections) >= self.max_connections
        super().connection_made(transport)
        self._idle_since = time.monotonic()
        self._response_transport = cast(asyncio.Transport, _ResponseTransport(self))
        self._begin_period()
        if full:
            self._log_exhaustion()
        if full and not self._close_idle():
            self._refuse(
                ErrorCode.TOO_MANY_CONNECTIONS, f"{self.max_connections} connections are open."
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._cancel_timer()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, within the limits."""
        if self._discarding:
            self._discard(data)
            return
        self._unset_keepalive_if_required()
        self._arrived += len(data)
        self._chunks = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # may be ignored (RFC 9110, 7.8)
            pass
        except httptools.HttpParserError:
            self._refuse(ErrorCode.MALFORMED_REQUEST, "The request is not valid HTTP/1.1.")
        else:
            self._was_paused |= self.flow.read_paused
            self._kept = 0 if self._chunks else self._kept + len(data)
            if (self._in_head or self._in_body) and self._kept > MAX_HEAD:
                self._refuse(
                    ErrorCode.HEAD_TOO_LARGE, f"The limit for a request's head is {MAX_HEAD} bytes."
                )

    def on_message_begin(self) -> None:
        """As uvicorn's.

        Raises:
            RuntimeError: If the previous request has no response yet; ends the parsing.
        """
        # A client may have read the whole response before the route returns.
        answered = self.cycle is None or self.cycle.response_started
        if not answered or self.pipeline:
            self._ignore_other_requests()
        super().on_message_begin()
        self._in_head, self._kept = True, 0
        self._begin_period()

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's, but ignores trailer fields, which must not be used as header fields.

        Raises:
            OverflowError: If there are too many; ends the parsing.
        """
        if not self._in_head:
            return
        if len(self.headers) == MAX_FIELDS:
            self._refuse(ErrorCode.HEAD_TOO_LARGE, f"The limit is {MAX_FIELDS} header fields.")
            raise OverflowError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """As uvicorn's; a response before the end of the body closes the connection.

        Raises:
            OverflowError: If the path is too long; ends the parsing.
            ValueError: If there are several Host fields (RFC 9112, 3.2); ends the parsing.
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
        self.cycle.transport = self._response_transport
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_body(self, body: bytes) -> None:
        """As uvicorn's.

        Raises:
            RuntimeError: If the previous request has no full response yet; ends the parsing.
            OverflowError: If the chunks are too small; ends the parsing.
        """
        if self.pipeline:
            self._ignore_other_requests()
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            self._refuse(ErrorCode.MALFORMED_REQUEST, "The chunks of the body are too small.")
            raise OverflowError
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As uvicorn's."""
        self._in_body = False
        self._cancel_timer()
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's."""
        self._idle_since = time.monotonic()
        super().on_response_complete()
        if self._discarding:
            self.close_gracefully()

    def pause_writing(self) -> None:
        """As uvicorn's; aborts the connection if the client reads too slowly."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """As uvicorn's."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().resume_writing()

    def shutdown(self) -> None:
        """As uvicorn's, when the server stops; ends streams of events, which clients resume."""
        self.app_state["events"].stop()
        self._keep_alive = False
        super().shutdown()

    def close_gracefully(self) -> None:
        """Close the connection after the response (lingering close).

        While the client is still sending, its data is read and discarded for a few seconds,
        because closing at once would make TCP drop the response.
        """
        self._cancel_timer()
        if self.transport.is_closing() or not (self._in_body or self._discarding):
            self.transport.close()
            return
        self._discarding = True
        if self.cycle is not None:
            self.cycle.body = bytearray()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._set_timer(_LINGER, self.transport.close)

    def _ignore_other_requests(self) -> None:
        """Finish the current request and ignore all others.

        Raises:
            RuntimeError: Always; ends the parsing.
        """
        self._discarding = True
        self._cancel_timer()
        self.pipeline.clear()
        self.cycle.keep_alive = False
        raise RuntimeError

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _LINGER_BYTES:
            self.transport.pause_reading()

    def _refuse(self, code: ErrorCode, detail: str) -> None:
        """Send a problem document, unless a response has started; then close."""
        if self._discarding:
            return
        self._discarding = True
        ours = True
        if self.cycle is not None and not self.cycle.response_complete:
            ours = not self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if ours:
            self.transport.write(_refusal(code, detail, self.link_root))
        self.close_gracefully()

    def _log_exhaustion(self) -> None:
        """Log, once a minute, that all connections are in use."""
        now = time.monotonic()
        if now >= BoundedProtocol._next_log:
            BoundedProtocol._next_log = now + _LOG_INTERVAL
            log.warning(
                "connections_exhausted",
                limit=self.max_connections,
                hint="idle connections are closed, new ones refused; raise GAMMA_MAX_CONNECTIONS, "
                "or limit connections per client in a proxy",
            )

    def _close_idle(self) -> bool:
        """Close the connection that is idle for longest; False if there is none."""
        connections = cast(set[BoundedProtocol], self.connections) - {self}
        idle = [one for one in connections if one.cycle is None or one.cycle.response_complete]
        if idle:
            min(idle, key=lambda one: one._idle_since).transport.abort()
        return bool(idle)

    def _begin_period(self) -> None:
        self._arrived, self._was_paused = 0, self.flow.read_paused
        self._set_timer(self.timeout, self._end_period)

    def _end_period(self) -> None:
        was_paused = self._was_paused or self.flow.read_paused
        if self._in_body and (was_paused or self._arrived >= self.timeout * MIN_RATE):
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

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _ResponseTransport:
    """The part of a transport that responses use; `close` closes gracefully."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        self._protocol.close_gracefully()


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
