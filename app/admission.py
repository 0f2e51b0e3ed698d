"""Admission: whether uploads are taken, decided before a byte of their body is read."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Request
from redis import Redis

from app.callers import Caller
from app.directory import Directory
from app.jobs import Backlog, ask_backlog, queue_key, read_backlog
from app.limits import Quota, RateLimit, rate_key
from app.problems import ServiceError
from app.schemas import ErrorCode
from app.settings import Settings
from app.together import Together

_LOOK_INTERVAL = 1.0  # s; memory and waiting time are looked at this often, whatever comes in
_DRAINED = 0.1  # part of the queue that has to drain before it is worth trying again
_LONGEST_RETRY = 300  # s

# KEYS: queue, caller's bucket; ARGV: pictures, limit of the queue, then of the rate limit (count 0:
# there is none) count and spacing (µs). Takes as many pictures as both limits allow. Returns their
# number, how many jobs wait, and of the bucket how many pictures are left and µs until it is full.
_TAKE = """
local waiting = redis.call('LLEN', KEYS[1])
local taken = math.max(0, math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - waiting))
local count, spacing = tonumber(ARGV[3]), tonumber(ARGV[4])
if count == 0 then return {taken, waiting, 0, 0} end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = math.max(now, tonumber(redis.call('GET', KEYS[2]) or '') or 0)
local left = math.max(0, math.floor((now + count * spacing - full) / spacing))
taken = math.min(taken, left)
if taken > 0 then
  full = full + taken * spacing
  redis.call('SET', KEYS[2], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
end
return {taken, waiting, left - taken, full - now}
"""


@dataclass(frozen=True)
class Admission:
    """How much of an upload is taken.

    Attributes:
        taken: number of pictures, counted against the rate limit.
        refusal: why the others are not; None if all are.
        headers: fields of the answer that tell the caller's rate limit, if there is one.
    """

    taken: int
    refusal: ServiceError | None
    headers: dict[str, str]


@dataclass(frozen=True)
class _Pressure:
    """What is looked at once a second rather than for each upload."""

    backlog: Backlog
    memory: float
    """used share of Redis's memory; 0 if it has no limit"""


class Gate:
    """Decides who may upload now; all that outlives a second is in Redis. Safe between threads."""

    def __init__(self, settings: Settings, redis: Redis, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._redis = redis
        self._pressure = _Pressure(Backlog(0, 0.0), 0.0)
        self._next_look = 0.0
        self.ask = Together(self.admit_all)

    def admit(self, caller: str, pictures: int = 1) -> Admission:
        """Take as many pictures as the limits allow, see `admit_all`."""
        (admission,) = self.admit_all([(caller, pictures)])
        return admission

    def admit_all(self, asked: Sequence[tuple[str, int]]) -> list[Admission]:
        """Take as many pictures as the limits allow, in one round trip (two, once a second).

        A refusal by queue or memory costs nothing of the rate limit.

        Args:
            asked: callers, and how many pictures each brings; the first is served first.
        """
        pressure = self._look()
        if self._overload(pressure) is not None:
            return [Admission(0, self._overload(pressure), {}) for _ in asked]
        callers = self._directory.now
        limits = [callers.terms_of(caller).rate_limit for caller, _ in asked]
        with self._redis.pipeline(transaction=False) as pipeline:
            for (caller, pictures), limit in zip(asked, limits, strict=True):
                keys = [queue_key(self._settings.queue), rate_key(caller, limit)]
                rate = (limit.count, limit.spacing) if limit else (0, 0)
                pipeline.eval(_TAKE, len(keys), *keys, pictures, self._settings.queue_limit, *rate)
            replies = cast(list[list[int]], pipeline.execute())
        return [
            self._admission(pictures, limit, reply, pressure)
            for (_, pictures), limit, reply in zip(asked, limits, replies, strict=True)
        ]

    def _admission(
        self, pictures: int, limit: RateLimit | None, reply: list[int], pressure: _Pressure
    ) -> Admission:
        """Read what `_TAKE` answered."""
        refusal = None
        taken, waiting, left, full_in = reply
        quota = Quota(limit, left, full_in) if limit else None
        if taken < pictures:
            if quota is not None and quota.left == 0:
                refusal = _rate_limited(quota)
            else:
                refusal = _queue_full(Backlog(waiting, pressure.backlog.oldest_age))
        return Admission(taken, refusal, quota.headers() if quota else {})

    def _look(self) -> _Pressure:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_INTERVAL  # set first: the other threads need not wait
            with self._redis.pipeline(transaction=False) as pipeline:
                ask_backlog(pipeline, self._settings.queue)
                pipeline.info("memory")
                backlog, memory = pipeline.execute()
            self._pressure = _Pressure(read_backlog(backlog), _used_share(memory))
        return self._pressure

    def _overload(self, pressure: _Pressure) -> ServiceError | None:
        limit = self._settings.queue_age_limit
        age = pressure.backlog.oldest_age
        if age > limit:
            return ServiceError(
                ErrorCode.QUEUE_SLOW,
                f"The oldest of {pressure.backlog.depth} detections has waited for {age:.0f} s.",
                retry_after=_clamped(max(age - limit, age * _DRAINED)),
            )
        if pressure.memory > self._settings.storage_limit:
            return ServiceError(
                ErrorCode.STORAGE_FULL,
                f"{pressure.memory:.0%} of the memory of Redis is in use.",
            )
        return None


def _used_share(memory: dict[str, Any]) -> float:
    limit = int(memory.get("maxmemory", 0))
    return int(memory["used_memory"]) / limit if limit else 0.0


def _queue_full(backlog: Backlog) -> ServiceError:
    # The head came in `oldest_age` seconds ago and all others after it: at this pace the whole
    # queue takes about as long to drain.
    return ServiceError(
        ErrorCode.QUEUE_FULL,
        f"{backlog.depth} detections wait already, the oldest for {backlog.oldest_age:.0f} s.",
        retry_after=_clamped(backlog.oldest_age * _DRAINED),
    )


def _rate_limited(quota: Quota) -> ServiceError:
    return ServiceError(
        ErrorCode.RATE_LIMITED,
        f"Your limit is {quota.limit} pictures.",
        retry_after=max(1, quota.retry_after),
    )


def _clamped(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)


async def take(request: Request, caller: Caller, pictures: int = 1) -> Admission:
    """Ask the gate for a request; its answer will carry the caller's rate limit.

    Of an upload of several pictures only `taken` many may be processed.
    """
    gate = cast(Gate, request.app.state.gate)
    (admission,) = await gate.ask([(caller.name, pictures)])
    if admission.headers:
        request.state.headers = admission.headers
    return admission


async def admit(request: Request, caller: Caller) -> None:
    """Take one picture, as the routes that take uploads do before they read the body.

    Raises:
        ServiceError: `rate_limited`, `queue_full`, `queue_slow`, `storage_full`.
    """
    admission = await take(request, caller)
    if admission.refusal is not None:
        raise admission.refusal
