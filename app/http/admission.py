"""Admission control: accepts or refuses uploads before their bodies are read."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Request
from redis import Redis
from redis.client import Pipeline

from app.contract.directory import CallerSettings, Directory
from app.contract.jobs import Backlog, ask_detections, queue_key, read_detections
from app.contract.limits import Quota, rate_key
from app.contract.records import index_key, waiting_key
from app.contract.reservation import ask_reserved
from app.contract.schemas import ErrorCode, Usage
from app.contract.scripts import TAKE
from app.contract.settings import Settings
from app.http.callers import Caller
from app.http.coalescer import Coalescer
from app.http.problems import ServiceError

_LOOK_INTERVAL = 1.0  # s, between checks of memory and waiting time
_DRAINED = 0.1  # fraction of the queue that should drain before a retry
_MAX_RETRY_AFTER = 300  # s


@dataclass(frozen=True)
class Admission:
    """Result of admission control for one upload.

    Attributes:
        taken: number of admitted pictures, which count against the rate limit.
        refusal: why the others are refused; None if all are admitted.
        headers: header fields of the caller's rate limit, if there is one.
    """

    taken: int
    refusal: ServiceError | None
    headers: dict[str, str]


@dataclass(frozen=True)
class _Pressure:
    """Values that are read once a second instead of for each upload."""

    backlog: Backlog
    free: int | None
    """Free bytes of memory, negative if too much is used or reserved; None: no limit."""


class AdmissionControl:
    """Admission control; its lasting state is in Redis. Thread-safe."""

    def __init__(self, settings: Settings, redis: Redis, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._redis = redis
        self._pressure = _Pressure(Backlog(0, 0.0), None)
        self._next_look = 0.0
        self.ask = Coalescer(self.admit_all)

    def admit(self, caller: str, pictures: int = 1) -> Admission:
        """Admit pictures of one caller, see `admit_all`."""
        (admission,) = self.admit_all([(caller, pictures)])
        return admission

    def admit_all(self, asked: Sequence[tuple[str, int]]) -> list[Admission]:
        """Admit as many pictures as the limits allow, in one round trip (two once a second).

        Refused pictures do not count against the rate limit.

        Args:
            asked: names of callers and numbers of pictures, in order of priority.
        """
        pressure = self._look()
        if pressure.free is not None and pressure.free < 0:
            return [Admission(0, ServiceError(ErrorCode.STORAGE_FULL), {}) for _ in asked]
        callers = self._directory.now
        all_limits = [callers.settings_of(caller) for caller, _ in asked]
        with self._redis.pipeline(transaction=False) as pipeline:
            for (caller, pictures), limits in zip(asked, all_limits, strict=True):
                self._take(pipeline, caller, pictures, limits, pressure)
            replies = pipeline.execute()
        return [
            self._admission(limits, reply, pressure)
            for limits, reply in zip(all_limits, replies, strict=True)
        ]

    def usage(self, caller: str) -> Usage:
        """Usage and limits of a caller."""
        limits = self._directory.now.settings_of(caller)
        with self._redis.pipeline(transaction=False) as pipeline:
            self._take(pipeline, caller, 0, limits, self._look())
            ((_, _, _, own, age, held, coming, left, _),) = pipeline.execute()
        return Usage(
            caller=caller,
            waiting=own,
            oldest_wait=age,
            kept_bytes=held,
            reserved_bytes=coming,
            uploads_left=left if limits.rate_limit else None,
            rate_limit=str(limits.rate_limit) if limits.rate_limit else None,
            queue_limit=limits.queue_limit,
            storage_limit=limits.storage_limit,
            weight=limits.weight,
        )

    def _take(
        self,
        pipeline: Pipeline,
        caller: str,
        pictures: int,
        limits: CallerSettings,
        pressure: _Pressure,
    ) -> None:
        """Add `TAKE` to `pipeline`."""
        limit = limits.rate_limit
        keys = [
            queue_key(self._settings.queue),
            waiting_key(caller),
            rate_key(caller, limit),
            index_key(caller),
        ]
        arguments: list[str | int | float] = [
            caller,
            pictures,
            time.time(),
            self._settings.queue_ttl,
            self._settings.queue_age_limit,
            self._settings.queue_limit,
            limit.count if limit else 0,
            limit.spacing if limit else 0,
            0 if self._directory.now.alone else limits.weight,
            limits.queue_limit or 0,
            int(limits.storage_limit or 0),
            "" if pressure.free is None else pressure.free,
            int(self._settings.store is None),
        ]
        TAKE(keys, arguments, client=pipeline)

    def _admission(
        self, limits: CallerSettings, reply: list[Any], pressure: _Pressure
    ) -> Admission:
        """Parse the reply of `TAKE`."""
        taken, reason, waiting, own, age, _, _, left, full_in = reply
        quota = Quota(limits.rate_limit, left, full_in) if limits.rate_limit else None
        headers = quota.headers() if quota else {}
        if not reason:
            return Admission(taken, None, headers)
        code = ErrorCode(reason.decode())
        if code is ErrorCode.RATE_LIMITED and quota is not None:
            refusal = _rate_limited(quota)
        elif code is ErrorCode.QUEUE_SHARE_FULL:
            refusal = _queue_share_full(own, age)
        elif code is ErrorCode.QUEUE_SLOW:
            refusal = _queue_slow(own, age, self._settings.queue_age_limit)
        elif code is ErrorCode.STORAGE_SHARE_FULL:
            refusal = ServiceError(ErrorCode.STORAGE_SHARE_FULL)
        else:
            refusal = _queue_full(Backlog(waiting, pressure.backlog.oldest_age))
        return Admission(taken, refusal, headers)

    def _look(self) -> _Pressure:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_INTERVAL  # set first, so that other threads skip it
            with self._redis.pipeline(transaction=False) as pipeline:
                ask_detections(pipeline, self._settings)
                ask_reserved(pipeline)
                pipeline.info("memory")
                backlog, reserved, memory = pipeline.execute()
            most = int(memory.get("maxmemory", 0) * self._settings.storage_limit)
            free = most - int(memory["used_memory"]) - reserved if most else None
            self._pressure = _Pressure(read_detections(backlog), free)
        return self._pressure


def _queue_slow(own: int, age: int, limit: int) -> ServiceError:
    return ServiceError(
        ErrorCode.QUEUE_SLOW,
        f"The oldest of your {own} waiting detections has waited {age} s.",
        retry_after=_clamped(max(age - limit, age * _DRAINED)),
    )


def _queue_share_full(own: int, age: int) -> ServiceError:
    return ServiceError(
        ErrorCode.QUEUE_SHARE_FULL,
        f"You have {own} waiting detections, your share of the queue.",
        retry_after=_clamped(age * _DRAINED),
    )


def _queue_full(backlog: Backlog) -> ServiceError:
    # All jobs arrived within the last `oldest_age` seconds; at the same rate the queue takes about
    # as long to drain.
    return ServiceError(
        ErrorCode.QUEUE_FULL,
        f"{backlog.depth} detections are waiting, the oldest for {backlog.oldest_age:.0f} s.",
        retry_after=_clamped(backlog.oldest_age * _DRAINED),
    )


def _rate_limited(quota: Quota) -> ServiceError:
    return ServiceError(
        ErrorCode.RATE_LIMITED,
        f"Your limit is {quota.limit} pictures.",
        retry_after=max(1, quota.retry_after),
    )


def _clamped(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), _MAX_RETRY_AFTER)


async def take(request: Request, caller: Caller, pictures: int = 1) -> Admission:
    """Admit pictures of a request, and add rate-limit header fields to its response."""
    control = cast(AdmissionControl, request.app.state.admission)
    (admission,) = await control.ask([(caller.name, pictures)])
    if admission.headers:
        request.state.headers = admission.headers
    return admission


async def admit(request: Request, caller: Caller) -> None:
    """Admit one picture, before the body is read.

    Raises:
        ServiceError: If it is refused: `rate_limited`, `queue_full`, `queue_slow`,
            `storage_full`, `queue_share_full` or `storage_share_full`.
    """
    admission = await take(request, caller)
    if admission.refusal is not None:
        raise admission.refusal
