"""redis-py's client, adapted to commands with large values and with a typed error."""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import redis.asyncio
import redis.asyncio.sentinel
from redis import Redis
from redis._parsers import Encoder
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.client import Pipeline
from redis.connection import HiredisRespSerializer, PythonRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import (
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.utils import SENTINEL

from app.contract import sentinel

_LARGE_VALUE = 64 * 1024  # bytes
_ENCODER = Encoder("utf-8", "strict", False)  # type: ignore[no-untyped-call]

# A replica; a failed write to disk; too few replicas.
_REFUSALS = ("READONLY", "MISCONF", "NOREPLICAS")
_DEMOTED = "UNBLOCKED"  # the master became a replica while a command waited
_SCRIPT_LOADS = 3  # the master may change again between loading and repeating


class WritesRefusedError(ResponseError):
    """Redis answers, but currently refuses writes."""


class _Typed:
    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """As redis-py's, but refused writes raise `WritesRefusedError`."""
        try:
            return super().parse_response(connection, command_name, **options)  # type: ignore[misc]
        except ResponseError as error:
            if _DEMOTED in str(error):
                raise RedisConnectionError(str(error)) from error.__cause__
            raise _typed(error) from error.__cause__


def _typed(error: ResponseError) -> ResponseError:
    refused = error.status_code in _REFUSALS or any(word in str(error) for word in _REFUSALS)
    return WritesRefusedError(*error.args) if refused else error


class Client(_Typed, Redis):
    """As redis-py's, but errors in a pipeline name the command and its key only.

    redis-py formats all arguments into the message: pictures would get into logs, and a refused
    upload of 20 MB would take half a minute of CPU time.
    """

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """As redis-py's."""
        return TypedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class TypedPipeline(_Typed, Pipeline):
    """As redis-py's, with the errors of `Client`."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """As redis-py's, but loads scripts only if Redis lacks one, then repeats all commands.

        A pipeline with scripts must therefore have the same effect when it runs twice.
        """
        commands, scripts = list(self.command_stack), list(self.scripts)
        for _ in range(_SCRIPT_LOADS):
            try:
                return super().execute(raise_on_error)
            except NoScriptError:
                for script in scripts:
                    self.immediate_execute_command("SCRIPT LOAD", script.script)  # type: ignore[no-untyped-call]
                self.command_stack = commands
        return super().execute(raise_on_error)

    def load_scripts(self) -> None:
        """Do nothing: redis-py's check before each execution costs a round trip."""

    def raise_first_error(self, commands: Any, response: Any) -> None:
        """As redis-py's; errors inside a transaction bypass `parse_response`."""
        try:
            super().raise_first_error(commands, response)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            raise _typed(error) from error.__cause__

    def annotate_exception(self, exception: Exception, number: int, command: Any) -> None:
        """As redis-py's, without the arguments."""
        reason, *others = exception.args
        name = " ".join(word for word in command[:2] if isinstance(word, str) and len(word) < 100)
        exception.args = (f"command {number} of a pipeline ({name}): {reason}", *others)


class Packer:
    """Packs commands with hiredis, except for large values, which hiredis would copy twice."""

    def __init__(self) -> None:
        self._fast = HiredisRespSerializer()
        self._plain = PythonRespSerializer(_LARGE_VALUE, _ENCODER.encode)

    def pack(self, *words: Any) -> list[Any]:
        """The command as a list of pieces to send in order."""
        large = any(isinstance(word, bytes) and len(word) > _LARGE_VALUE for word in words)
        return (self._plain if large else self._fast).pack(*words)  # type: ignore[no-any-return]


class _MasterConnection(SentinelManagedConnection):
    """A connection to the master, with two corrections of redis-py's."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """As redis-py's, but a retry asks the sentinels again and not the last master."""
        if self._sock is None:
            self._connect_retry()  # type: ignore[no-untyped-call]
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(
        self,
        disable_decoding: bool = False,
        *,
        timeout: Any = SENTINEL,
        disconnect_on_error: bool | None = True,
        push_request: bool | None = False,
    ) -> Any:
        """As redis-py's, but disconnects after a timeout by default, as its other connections do.

        The late reply would be read as that to the next command.
        """
        return super().read_response(
            disable_decoding,
            timeout=timeout,
            disconnect_on_error=disconnect_on_error,
            push_request=push_request,
        )


class _MasterSSLConnection(_MasterConnection, SentinelManagedSSLConnection):
    pass


C = TypeVar("C", bound=Client)


def open_client(kind: type[C], url: str, **options: Any) -> C:
    """Create a client of this class, of a server or of the master that sentinels name.

    Args:
        kind: class of the client.
        url: as for `connect`.
        options: of redis-py's connections.
    """
    service = sentinel.parse(url)
    if service is None:
        return cast(C, kind.from_url(url, **options))
    own = dict(service.sentinel_options)
    sentinels = Sentinel(service.sentinels, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    options |= service.options
    options["connection_class"] = _MasterSSLConnection if service.tls else _MasterConnection
    return cast(C, sentinels.master_for(service.name, redis_class=kind, **options))  # type: ignore[no-untyped-call]


def connect_async(url: str) -> redis.asyncio.Redis:
    """Create redis-py's asynchronous client; `url` as for `connect`."""
    service = sentinel.parse(url)
    if service is None:
        return redis.asyncio.Redis.from_url(url)
    own = {**service.sentinel_options, "retry": AsyncRetry(NoBackoff(), 0)}
    sentinels = redis.asyncio.sentinel.Sentinel(service.sentinels, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    return cast(
        redis.asyncio.Redis,
        sentinels.master_for(service.name, ssl=service.tls, **service.options),
    )


def check_url(url: str) -> None:
    """Check that `connect` accepts a URL, without connecting.

    Raises:
        ValueError: If it does not. The message omits the URL, which may contain a password.
    """
    try:
        if sentinel.parse(url) is not None:
            open_client(Client, url).connection_pool.make_connection()
            return
        parts = urlsplit(url)
        # redis-py would use database 0 if the path is not a number.
        if re.fullmatch(".+" if parts.scheme == "unix" else r"(/\d*)?", parts.path):
            Redis.from_url(url).connection_pool.make_connection()
            return
    except (ValueError, TypeError, RedisError):  # from urllib and redis-py
        pass
    raise ValueError(
        "is not a Redis URL: redis://:PASSWORD@HOST:6379/0, rediss://… (TLS), unix:///PATH or "
        "redis+sentinel://:PASSWORD@HOST:26379,HOST2:26379/MASTER/0; write special characters of a "
        "password as %XX"
    )


def connect(url: str, *, retries: int = 4, timeout: float = 10.0) -> Redis:
    """Create a client that retries after connection errors and timeouts.

    Args:
        url: `redis://`, `rediss://` or `unix://` URL, or one of `sentinel`.
        retries: maximum number of retries, with growing pauses of up to 0.5 s; 4 take about 1 s.
        timeout: seconds to wait for an answer, per attempt; half of it for a connection.
    """
    return open_client(
        Client,
        url,
        socket_connect_timeout=timeout / 2,
        socket_timeout=timeout,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=retries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
        command_packer=Packer(),
    )
