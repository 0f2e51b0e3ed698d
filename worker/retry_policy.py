"""Redis client that waits while Redis is unavailable or full."""

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

_RETRIES = 240  # about two minutes
_PAUSE = 0.5  # s between retries while Redis takes no writes
_LOG_INTERVAL = 30.0  # s

T = TypeVar("T")

log = structlog.get_logger()


class RetryPolicy(Retry):
    """Retries for two minutes while Redis is unavailable, and indefinitely while it refuses writes.

    A full Redis has room again once pictures expire, and a replica may become the master. Exiting
    would not help and would count as a death for each job of the worker.
    """

    def call_with_retry(
        self, do: Callable[[], T], fail: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> T:
        """Like redis-py's; also retries writes that are refused."""
        logged = 0.0
        while True:
            try:
                return super().call_with_retry(do, fail, *args, **kwargs)
            except (OutOfMemoryError, WritesRefusedError, ExecAbortError) as error:
                if not _takes_no_writes(error):
                    raise
                if time.monotonic() - logged > _LOG_INTERVAL:
                    logged = time.monotonic()
                    log.error("redis_takes_no_writes", error=str(error))
            time.sleep(_PAUSE)


def connect_with_retries(url: str) -> Redis:
    """Connect like `connect`, with `RetryPolicy`; commands may be sent more than once."""
    redis = connect(url)
    redis.set_retry(RetryPolicy(ExponentialWithJitterBackoff(base=0.05, cap=0.5), _RETRIES))
    return redis


def _takes_no_writes(error: ResponseError) -> bool:
    # If the last command of a transaction is refused, only the message tells.
    known = isinstance(error, OutOfMemoryError | WritesRefusedError)
    return known or "OOM" in str(error)
