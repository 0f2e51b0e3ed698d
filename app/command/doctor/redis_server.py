"""Checks of `gamma doctor` on Redis: the server, its clock, workers and webhook deliveries."""

from __future__ import annotations

import time
from typing import Any, cast

from pydantic import ByteSize
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
)
from rq import Queue, Worker

from app.command.doctor.findings import Finding, note, ok, wrong
from app.command.embedded import PrivateRedisError, running_url, server_binary
from app.contract.client import connect
from app.contract.jobs import queue_key
from app.contract.records import RESERVED_KEY
from app.contract.reservation import reserved
from app.contract.settings import Settings
from app.contract.store import Store
from app.webhooks.queue import queue_name

_MIN_VERSION = 7  # major; scripts use PEXPIRETIME
_RECORD = 4_000  # bytes
_PICTURE = 77_000  # bytes; a file of 1024 × 768: docs/capacity.md
_PIXELS = 1024 * 768
_TIMEOUT = 3.0  # s, per attempt
_MAX_SKEW = 2.0  # s; above it heartbeats and expiry times are wrong


def examine(settings: Settings) -> list[Finding]:
    """Check Redis, and the workers and deliveries that are registered in it."""
    if settings.redis_url is not None:
        url, private = settings.redis_url.get_secret_value(), None
    else:
        private = _private(settings)
        running = running_url(settings.data_dir)
        if running is None:
            return [private, *_capacity(int(settings.redis_maxmemory), settings)]
        url = running
    with connect(url, retries=1, timeout=_TIMEOUT) as redis:
        try:
            findings = [*_server(redis, settings), *_clock(redis)]
            findings += [*_workers(redis, settings), *_suspended(redis)]
            findings += _deliveries(redis, settings)
        except (RedisError, OSError) as error:
            findings = [_unreachable(error)]
    return findings if private is None else [private, *findings]


def _private(settings: Settings) -> Finding:
    try:
        binary = server_binary()
    except PrivateRedisError as error:
        return wrong("redis", "`gamma serve` finds no Redis server to start", str(error))
    return ok("redis", f"private, run by `gamma serve`: {binary}, files in {settings.data_dir}")


def _unreachable(error: Exception) -> Finding:
    if isinstance(error, AuthenticationError):
        return wrong(
            "redis",
            f"Redis rejects the password in GAMMA_REDIS_URL: {error}",
            "compare it with `requirepass` (or the ACL); write special characters in the URL as "
            "%XX",
        )
    if isinstance(error, NoPermissionError):
        return wrong(
            "redis",
            f"the user in GAMMA_REDIS_URL lacks permissions: {error}",
            "compare its rights with docs/redis.md: `ACL LOG` in Redis shows what was refused",
        )
    if isinstance(error, BusyLoadingError):
        return wrong("redis", "it is still loading its file", "wait; its log shows the progress")
    return wrong(
        "redis",
        f"GAMMA_REDIS_URL does not answer: {error}",
        "start Redis; then check host and port, the address that it binds, and firewalls and "
        "NetworkPolicies in between",
    )


def _server(redis: Redis, settings: Settings) -> list[Finding]:
    info = redis.info()
    found = []
    # Other servers report the Redis version that they are compatible with.
    if int(str(info["redis_version"]).split(".")[0]) < _MIN_VERSION:
        found.append(wrong("redis", f"{_version(info)} is too old", f"use {_MIN_VERSION} or later"))
    if info.get("cluster_enabled"):
        found.append(
            wrong(
                "redis",
                "cluster mode is on, but scripts use keys of several slots",
                "use a single server, with replicas if needed",
            )
        )
    if info["role"] != "master":
        found.append(wrong("redis", "it is a read-only replica", "use the URL of the primary"))
    reserved_bytes = int(cast(bytes | None, redis.hget(RESERVED_KEY, "")) or 0)
    return [*found, *_memory(info, reserved_bytes, settings), *_file(info, settings)]


def _version(info: dict[str, Any]) -> str:
    """Name and version of the server; Valkey reports both its own and a Redis version."""
    name = str(info.get("server_name", "redis"))
    return f"{name} {info.get(f'{name}_version', info['redis_version'])}"


def _memory(info: dict[str, Any], reserved_bytes: int, settings: Settings) -> list[Finding]:
    """Check memory limit, use and eviction policy."""
    policy, limit = info["maxmemory_policy"], int(info["maxmemory"])
    found = []
    if policy != "noeviction":
        found.append(
            wrong(
                "memory",
                f"maxmemory-policy is {policy}: Redis evicts queued work when memory is full",
                "`redis-cli CONFIG SET maxmemory-policy noeviction`, and the same in redis.conf",
            )
        )
    if not limit:
        found.append(
            wrong(
                "memory",
                "maxmemory is not set: uploads are never refused, and Redis grows until the "
                "system kills it",
                "`redis-cli CONFIG SET maxmemory 2gb`, and the same in redis.conf; for the size "
                "see docs/capacity.md",
            )
        )
    elif int(info["used_memory"]) + reserved_bytes > settings.storage_limit * limit:
        found.append(
            wrong(
                "memory",
                f"{info['used_memory_human']} of {info['maxmemory_human']} used, "
                f"{ByteSize(reserved_bytes).human_readable()} reserved for results: uploads are "
                "refused (storage_full)",
                "if much is reserved, start more workers; otherwise raise maxmemory, or shorten "
                "GAMMA_RETENTION for new uploads",
            )
        )
    used = f"{info['used_memory_human']} of {info['maxmemory_human']}, {policy}"
    return found or _capacity(limit, settings) or [ok("memory", used)]


def _capacity(limit: int, settings: Settings) -> list[Finding]:
    """Check that `limit` bytes of memory hold a full queue."""
    inside = settings.store is None
    each = _RECORD + reserved(_PIXELS, masks=inside) + (_PICTURE if inside else 0)
    fit = int(limit * settings.storage_limit / each)
    if fit >= settings.queue_limit:
        return []
    return [
        note(
            "memory",
            f"{ByteSize(limit).human_readable()} hold about {fit} waiting pictures ({each // 1000} "
            f"kB each, with reserved memory), fewer than GAMMA_QUEUE_LIMIT={settings.queue_limit}: "
            "uploads are refused for lack of memory (storage_full) before the queue is full",
            f"set GAMMA_QUEUE_LIMIT={fit}, or raise the memory limit (GAMMA_REDIS_MAXMEMORY, or "
            "maxmemory of your Redis): docs/capacity.md",
        )
    ]


def _file(info: dict[str, Any], settings: Settings) -> list[Finding]:
    version = _version(info)
    if not info["aof_enabled"]:
        if not settings.require_append_only:
            accepted = "a restart loses work, which GAMMA_REQUIRE_APPEND_ONLY=false accepts"
            return [ok("redis", f"{version}, no append-only file: {accepted}")]
        return [
            wrong(
                "redis",
                f"{version} writes no append-only file: a restart loses accepted work",
                "`redis-cli CONFIG SET appendonly yes`, and the same in redis.conf; for a managed "
                "service without one, GAMMA_REQUIRE_APPEND_ONLY=false accepts the loss",
            )
        ]
    if info["aof_last_write_status"] != "ok":
        return [
            wrong(
                "redis",
                f"{version} cannot write its append-only file",
                "its disk is full or read-only: free some space; Redis retries by itself",
            )
        ]
    if info["aof_last_bgrewrite_status"] != "ok":
        return [
            wrong(
                "redis",
                f"{version} could not rewrite its append-only file: deleted data stays in it",
                "the disk must have space for two copies of the file; Redis retries by itself",
            )
        ]
    return [ok("redis", f"{version}, append-only file on")]


def _clock(redis: Redis) -> list[Finding]:
    before = time.time()
    seconds, microseconds = redis.time()
    after = time.time()
    remote = seconds + microseconds / 1e6
    skew = max(before - remote, remote - after, 0.0)  # lower bound, because of the round trip
    if skew <= _MAX_SKEW:
        return [ok("clock", "in sync with the clock of Redis")]
    ahead = "ahead of" if before > remote else "behind"
    return [
        wrong(
            "clock",
            f"this machine's clock is {skew:.0f} s {ahead} the clock of Redis",
            "run an NTP client (chrony, systemd-timesyncd) on both",
        )
    ]


def _workers(redis: Redis, settings: Settings) -> list[Finding]:
    workers = Store(redis).workers.live()
    waiting = redis.llen(queue_key(settings.queue))
    if not workers:
        advice = (
            "start `gamma worker` with this GAMMA_REDIS_URL and GAMMA_QUEUE; if one is running, "
            "its log says why it is not ready"
        )
        if waiting:
            return [wrong("workers", f"none is ready, and {waiting} jobs wait", advice)]
        return [note("workers", "none is ready", advice)]
    models = sorted({f"{worker.model.name} {worker.model.version}" for worker in workers})
    if len(models) > 1:
        return [
            note(
                "workers",
                f"{len(workers)} ready, with different models: {', '.join(models)}",
                "expected during a rollout only; otherwise set the same GAMMA_CHECKPOINT for all",
            )
        ]
    devices = ", ".join(sorted({f"{worker.device} {worker.dtype}" for worker in workers}))
    return [ok("workers", f"{len(workers)} ready, {models[0]} on {devices}; {waiting} jobs wait")]


def _suspended(redis: Redis) -> list[Finding]:
    if not Store(redis).workers.are_suspended():
        return []
    return [
        wrong(
            "queue",
            "it is suspended (`rq suspend`): workers take no jobs, and webhooks are not delivered",
            "`rq resume --url REDIS_URL`, with the value of GAMMA_REDIS_URL",
        )
    ]


def _deliveries(redis: Redis, settings: Settings) -> list[Finding]:
    name = queue_name(settings)
    queue = Queue(name, connection=redis)
    planned = redis.llen(queue.key) + redis.zcard(queue.scheduled_job_registry.key)
    if not settings.may_sign_webhooks:
        if not planned:
            return []
        return [
            wrong(
                "webhooks",
                f"{planned} deliveries wait, but there is no secret to sign them",
                "set GAMMA_WEBHOOK_SECRETS to the value that the API has",
            )
        ]
    senders = sum(name in worker.queue_names() for worker in Worker.all(connection=redis))
    if senders:
        return [ok("webhooks", f"{senders} process(es); {planned} deliveries wait")]
    advice = "start `gamma webhooks` (`gamma serve` includes it)"
    if planned:
        return [wrong("webhooks", f"{planned} deliveries wait, but no process sends them", advice)]
    return [note("webhooks", "no process sends them", advice)]
