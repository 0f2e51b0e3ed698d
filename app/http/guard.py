"""The API's Redis client: a time budget per request, and a circuit breaker for outages."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import structlog
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from app.contract import sentinel
from app.contract.client import (
    Client,
    Packer,
    TypedPipeline,
    WritesRefusedError,
    connect,
    open_client,
)

BUDGET = 2.0  # s

_PIECE = 2**20  # bytes; sending full pieces of a large command is not charged to the budget
_RETRIES = 4  # about a second in total
_PROBE_TIMEOUT = 1.0  # s
_PROBE_PAUSE = 0.5  # s
_WAIT_SHARE = 0.5  # of the budget, in which a replica must confirm changes
_MIN_TIMEOUT = 0.001  # s; 0 would make a socket non-blocking

T = TypeVar("T")

log = structlog.get_logger()


class CircuitOpenError(RedisConnectionError):
    """Redis recently failed to answer, so no command is sent."""


class Budget:
    """Total time that a request may wait for Redis, for all commands and retries."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._ends: float | None = None

    @property
    def left(self) -> float:
        """Remaining seconds; 0 or less if it is used up."""
        return self._left if self._ends is None else self._ends - time.monotonic()

    def extend(self, seconds: float) -> None:
        """Add seconds to the budget."""
        self._left += seconds
        if self._ends is not None:
            self._ends += seconds

    def charge(self, seconds: float) -> None:
        """Subtract seconds that another context spent on behalf of this request."""
        self._left -= max(0.0, seconds)

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Spend the budget while the context lasts."""
        if self._ends is not None:
            yield
            return
        self._ends = time.monotonic() + self._left
        try:
            yield
        finally:
            self._left = self.left
            self._ends = None


_budget: ContextVar[Budget] = ContextVar("redis_budget")


def begin(seconds: float = BUDGET) -> Budget:
    """Set a new budget for this context and the threads it calls."""
    budget = Budget(seconds)
    _budget.set(budget)
    return budget


def current() -> Budget:
    """The budget of this context, or a new one."""
    return _budget.get(None) or Budget(BUDGET)


class Breaker:
    """A circuit breaker: open from the first failure until a background probe succeeds.

    Args:
        probe: raises a `RedisError` while Redis does not answer.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        self._probe = probe
        self._open = False
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Context for a command; spends the budget and opens the circuit on failure.

        Raises:
            CircuitOpenError: If the circuit is open.
            redis.exceptions.TimeoutError: If the budget is used up.
        """
        if self._open:
            raise CircuitOpenError("Redis is currently unavailable")
        budget = current()
        if budget.left <= 0:
            raise RedisTimeoutError("the request has used up its time budget for Redis")
        token = _budget.set(budget)
        try:
            with budget.spending():
                yield
        except (RedisConnectionError, RedisTimeoutError) as error:
            self._trip(error)
            raise
        finally:
            _budget.reset(token)

    def close(self) -> None:
        """Stop probing."""
        self._closing.set()

    def _trip(self, error: Exception) -> None:
        with self._lock:
            if self._open:
                return
            self._open = True
        log.error("redis_circuit_open", error=str(error))
        threading.Thread(target=self._probe_until_it_answers, daemon=True).start()

    def _probe_until_it_answers(self) -> None:
        began = time.monotonic()
        while not self._closing.is_set():
            try:
                self._probe()
            except RedisError:
                self._closing.wait(_PROBE_PAUSE)
            else:
                self._open = False
                log.info("redis_circuit_closed", seconds=round(time.monotonic() - began, 1))
                return


class GuardedClient(Client):
    """A `Client` with time budget and circuit breaker.

    Every command raises `CircuitOpenError` if the circuit is open.
    """

    breaker: Breaker
    replicated = False
    """Whether changes are confirmed only once a replica has them, so that a failover keeps them."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py's."""
        with self.breaker.call():
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def _send_command_parse_response(
        self, conn: Any, command_name: Any, *args: Any, **options: Any
    ) -> Any:
        """As redis-py's; a script may have changed something."""
        reply = super()._send_command_parse_response(  # type: ignore[no-untyped-call]
            conn, command_name, *args, **options
        )
        if self.replicated and command_name in ("EVAL", "EVALSHA"):
            _wait_for_replica(conn)
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """As redis-py's."""
        pipeline = _GuardedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        pipeline.breaker = self.breaker
        pipeline.replicated = self.replicated
        return pipeline

    def close(self) -> None:
        """As redis-py's."""
        self.breaker.close()
        super().close()


class _GuardedPipeline(TypedPipeline):
    breaker: Breaker
    replicated: bool

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """As redis-py's."""
        with self.breaker.call():
            return super().execute(raise_on_error)

    def _execute_transaction(
        self, connection: Any, commands: Any, raise_on_error: bool
    ) -> list[Any]:
        """As redis-py's."""
        replies = super()._execute_transaction(connection, commands, raise_on_error)
        if self.replicated:
            _wait_for_replica(connection)
        return replies


def _wait_for_replica(connection: Any) -> None:
    """Wait until a replica has the changes of this connection; at once if there are none.

    Raises:
        WritesRefusedError: If none confirms it. The changes are made, and may be lost.
    """
    connection.send_command("WAIT", 1, max(1, int(_WAIT_SHARE * 1000 * current().left)))
    if connection.read_response() < 1:
        raise WritesRefusedError("NOREPLICAS no replica confirmed the change in time")


class _Bounded:
    """A connection whose timeouts are the rest of the budget."""

    def _connect(self) -> Any:
        self.socket_connect_timeout = self.socket_timeout = _timeout()
        return super()._connect()  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """As redis-py's, but a large command may take longer while it makes progress."""
        for piece in _pieces(command):
            began = time.monotonic()
            if self._sock is not None:  # type: ignore[attr-defined]
                self._sock.settimeout(_timeout())  # type: ignore[attr-defined]
            super().send_packed_command([piece], check_health)  # type: ignore[misc]
            check_health = False  # a health check must not interrupt this command
            if len(piece) == _PIECE:
                current().extend(time.monotonic() - began)


class _Retry(Retry):
    def call_with_retry(
        self, do: Callable[[], T], fail: Any, is_retryable: Any = None, *args: Any, **options: Any
    ) -> T:
        """As redis-py's, within the budget."""
        return super().call_with_retry(
            do, fail, is_retryable or (lambda _: current().left > 0), *args, **options
        )


def _pieces(command: str | Sequence[bytes]) -> Iterator[str | memoryview]:
    if isinstance(command, str):
        yield command
        return
    for part in command:
        for at in range(0, len(part), _PIECE):
            yield memoryview(part)[at : at + _PIECE]


def _timeout() -> float:
    return max(current().left, _MIN_TIMEOUT)


def connect_guarded(url: str) -> GuardedClient:
    """Create the client for API processes; `url` as for `connect`."""
    probes = connect(url, retries=0, timeout=_PROBE_TIMEOUT)
    client = open_client(
        GuardedClient,
        url,
        health_check_interval=30,
        retry=_Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=_RETRIES),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
        command_packer=Packer(),
    )
    client.replicated = sentinel.parse(url) is not None
    pool = client.connection_pool
    pool.connection_class = type("BoundedConnection", (_Bounded, pool.connection_class), {})
    client.breaker = Breaker(probes.ping)
    return client
