"""A Redis client that outlasts a Redis that is away, and one that is full."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ExecAbortError, OutOfMemoryError, ResponseError
from redis.retry import Retry

from app.contract.client import WritesRefusedError, connect

_RETRIES = 240  # about two minutes without Redis are outlasted with the work in hand
_PAUSE = 0.5  # s
_LOGGED = 30.0  # s; from one line of the log to the next

T = TypeVar("T")

log = structlog.get_logger()


class RetryPolicy(Retry):
    """Tries again for minutes while Redis is away, and for ever while it takes no writes.

    Pictures and masks expire, so a full Redis has room again without anybody's help, and a replica
    may become the master; a worker that ended in between would only use up the tries of what it
    holds.
    """

    def call_with_retry(
        self, do: Callable[[], T], fail: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> T:
        """As redis-py's."""
        logged = 0.0
        while True:
            try:
                return super().call_with_retry(do, fail, *args, **kwargs)
            except (OutOfMemoryError, WritesRefusedError, ExecAbortError) as error:
                if not _takes_no_writes(error):
                    raise
                if time.monotonic() - logged > _LOGGED:
                    logged = time.monotonic()
                    log.error("redis_takes_no_writes", error=str(error))
            time.sleep(_PAUSE)


def connect_with_retries(url: str) -> Redis:
    """As `connect`, for a process that holds work.

    Commands may be sent more than once, as whenever a connection breaks.
    """
    redis = connect(url)
    redis.set_retry(RetryPolicy(ExponentialWithJitterBackoff(base=0.05, cap=0.5), _RETRIES))
    return redis


def _takes_no_writes(error: ResponseError) -> bool:
    # A transaction whose last command is refused says so in its message only.
    known = isinstance(error, OutOfMemoryError | WritesRefusedError)
    return known or "OOM" in str(error)
