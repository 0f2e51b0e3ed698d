"""What the doctor finds in Redis: the server itself, its clock, and who is at work."""

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

_OLDEST = 7  # major version; PEXPIRETIME, which scripts use, came with it
_RECORD = 4_000  # bytes
_PICTURE = 77_000  # bytes; a file of 1024 × 768: docs/capacity.md
_PIXELS = 1024 * 768
_TIMEOUT = 3.0  # s, of each try
_SKEW = 2.0  # s; beyond, workers seem dead or alive, and pictures expire, at the wrong time


def examine(settings: Settings) -> list[Finding]:
    """Redis, and what is seen there of the other processes."""
    if settings.redis_url is not None:
        url, private = settings.redis_url.get_secret_value(), None
    else:
        private = _private(settings)
        running = running_url(settings.data_dir)
        if running is None:
            return [private, *_small(int(settings.redis_maxmemory), settings)]
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
        return wrong("redis", "there is none for `gamma serve` to start", str(error))
    return ok("redis", f"private, by `gamma serve`: {binary}, files in {settings.data_dir}")


def _unreachable(error: Exception) -> Finding:
    if isinstance(error, AuthenticationError):
        return wrong(
            "redis",
            f"it refuses the password of GAMMA_REDIS_URL: {error}",
            "compare it with `requirepass` (or the ACL) of the Redis; special characters in the "
            "URL are written as %XX",
        )
    if isinstance(error, NoPermissionError):
        return wrong(
            "redis",
            f"the user of GAMMA_REDIS_URL may not do everything: {error}",
            "give it all commands on all keys and channels: `ACL SETUSER NAME ~* &* +@all`",
        )
    if isinstance(error, BusyLoadingError):
        return wrong(
            "redis", "it is still loading its file", "wait; Redis's log shows the progress"
        )
    return wrong(
        "redis",
        f"GAMMA_REDIS_URL does not answer: {error}",
        "start Redis; then check host and port, that it binds an address which this machine "
        "can reach, and that no firewall or NetworkPolicy blocks it",
    )


def _server(redis: Redis, settings: Settings) -> list[Finding]:
    info = redis.info()
    found = []
    if int(str(info["redis_version"]).split(".")[0]) < _OLDEST:  # of others: what they speak
        found.append(
            wrong("redis", f"{_version(info)} is too old", f"use {_OLDEST} or later, or a Valkey")
        )
    if info.get("cluster_enabled"):
        found.append(
            wrong(
                "redis",
                "it shards keys (cluster mode), but GAMMA changes several keys in one step",
                "use one server, optionally with a replica",
            )
        )
    if info["role"] != "master":
        found.append(
            wrong("redis", "it is a replica and accepts no writes", "name the primary in the URL")
        )
    coming = int(cast(bytes | None, redis.hget(RESERVED_KEY, "")) or 0)
    return [*found, *_memory(info, coming, settings), *_file(info, settings)]


def _version(info: dict[str, Any]) -> str:
    """Name and version of the server; a Valkey has its own beside that of the Redis it is like."""
    name = str(info.get("server_name", "redis"))
    return f"{name} {info.get(f'{name}_version', info['redis_version'])}"


def _memory(info: dict[str, Any], coming: int, settings: Settings) -> list[Finding]:
    """What is wrong with the memory, of which so many bytes are reserved for results to come."""
    policy, most = info["maxmemory_policy"], int(info["maxmemory"])
    found = []
    if policy != "noeviction":
        found.append(
            wrong(
                "memory",
                f"maxmemory-policy is {policy}: when memory is full, Redis evicts accepted work",
                "`redis-cli CONFIG SET maxmemory-policy noeviction`, and the same in redis.conf",
            )
        )
    if not most:
        found.append(
            wrong(
                "memory",
                "maxmemory is not set: Redis grows until the system kills it, and uploads are "
                "not refused before",
                "`redis-cli CONFIG SET maxmemory 2gb`, and the same in redis.conf; how much: "
                "docs/capacity.md",
            )
        )
    elif int(info["used_memory"]) + coming > settings.storage_limit * most:
        found.append(
            wrong(
                "memory",
                f"{info['used_memory_human']} of {info['maxmemory_human']} are used, "
                f"{ByteSize(coming).human_readable()} reserved for results: uploads are refused "
                "(storage_full)",
                "if much is reserved, start more workers; else raise maxmemory, or shorten "
                "GAMMA_RETENTION for new uploads",
            )
        )
    used = f"{info['used_memory_human']} of {info['maxmemory_human']}, {policy}"
    return found or _small(most, settings) or [ok("memory", used)]


def _small(most: int, settings: Settings) -> list[Finding]:
    """Whether so many bytes of memory are full before the queue is, by what waits there."""
    inside = settings.store is None
    each = _RECORD + reserved(_PIXELS, masks=inside) + (_PICTURE if inside else 0)
    fit = int(most * settings.storage_limit / each)
    if fit >= settings.queue_limit:
        return []
    return [
        note(
            "memory",
            f"{ByteSize(most).human_readable()} let about {fit} pictures wait, {each // 1000} kB "
            f"each with what is reserved, and {settings.queue_limit} may (GAMMA_QUEUE_LIMIT): "
            "uploads are refused because memory is full (storage_full) before the queue is",
            f"GAMMA_QUEUE_LIMIT={fit}, or more memory (GAMMA_REDIS_MAXMEMORY, or maxmemory of your "
            "Redis): docs/capacity.md",
        )
    ]


def _file(info: dict[str, Any], settings: Settings) -> list[Finding]:
    version = _version(info)
    if not info["aof_enabled"]:
        if not settings.require_append_only:
            accepted = "GAMMA_REQUIRE_APPEND_ONLY=false accepts that a restart loses work"
            return [ok("redis", f"{version}, no append-only file: {accepted}")]
        return [
            wrong(
                "redis",
                f"{version} writes no append-only file: a restart loses accepted work",
                "`redis-cli CONFIG SET appendonly yes`, and the same in redis.conf; for a managed "
                "service that has none, GAMMA_REQUIRE_APPEND_ONLY=false says that you accept it",
            )
        ]
    if info["aof_last_write_status"] != "ok":
        return [
            wrong(
                "redis",
                f"{version} cannot write its append-only file",
                "its disk is full or read-only: fix that; Redis retries by itself",
            )
        ]
    if info["aof_last_bgrewrite_status"] != "ok":
        return [
            wrong(
                "redis",
                f"{version} could not rewrite its append-only file: what was deleted stays in it",
                "its disk needs space for the file twice; Redis retries by itself",
            )
        ]
    return [ok("redis", f"{version}, append-only file on")]


def _clock(redis: Redis) -> list[Finding]:
    before = time.time()
    seconds, microseconds = redis.time()
    after = time.time()
    there = seconds + microseconds / 1e6
    skew = max(before - there, there - after, 0.0)  # at least; the answer took its time
    if skew <= _SKEW:
        return [ok("clock", "same as on Redis's machine")]
    ahead = "ahead of" if before > there else "behind"
    return [
        wrong(
            "clock",
            f"this machine's clock is {skew:.0f} s {ahead} the clock of Redis's machine",
            "run an NTP client (chrony, systemd-timesyncd) on both",
        )
    ]


def _workers(redis: Redis, settings: Settings) -> list[Finding]:
    workers = Store(redis).workers.live()
    waiting = redis.llen(queue_key(settings.queue))
    if not workers:
        advice = (
            "start `gamma worker` with this GAMMA_REDIS_URL and GAMMA_QUEUE; if one runs, its log "
            "says why it is not ready"
        )
        if waiting:
            return [wrong("workers", f"none is live, and {waiting} jobs wait", advice)]
        return [note("workers", "none is live", advice)]
    models = sorted({f"{worker.model.name} {worker.model.version}" for worker in workers})
    if len(models) > 1:
        return [
            note(
                "workers",
                f"{len(workers)} live, with different models: {', '.join(models)}",
                "fine only during a roll-out; otherwise set the same GAMMA_CHECKPOINT everywhere",
            )
        ]
    devices = ", ".join(sorted({f"{worker.device} {worker.dtype}" for worker in workers}))
    return [ok("workers", f"{len(workers)} live, {models[0]} on {devices}; {waiting} jobs wait")]


def _suspended(redis: Redis) -> list[Finding]:
    if not Store(redis).workers.are_suspended():
        return []
    return [
        wrong(
            "queue",
            "it is suspended (`rq suspend`): workers take no jobs, and webhooks are not delivered",
            "`rq resume --url REDIS_URL`, with the URL of GAMMA_REDIS_URL",
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
                f"{planned} are to be delivered, and here is no secret to sign them",
                "set GAMMA_WEBHOOK_SECRETS as it is set where they were accepted",
            )
        ]
    senders = sum(name in worker.queue_names() for worker in Worker.all(connection=redis))
    if senders:
        return [ok("webhooks", f"{senders} process(es) deliver; {planned} planned")]
    advice = "start `gamma webhooks` (`gamma serve` does it by itself)"
    if planned:
        return [wrong("webhooks", f"{planned} are to be delivered, and no process does it", advice)]
    return [note("webhooks", "no process delivers them", advice)]
