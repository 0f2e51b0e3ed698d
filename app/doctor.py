"""`gamma doctor`: what this machine and these settings give."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from app.embedded import PrivateRedisError, server_binary
from app.settings import Settings
from app.store import Store, connect


def examine(settings: Settings) -> bool:
    """Print one line a subject.

    Returns:
        Whether the service could run like this.
    """
    table = Table("subject", "found", "", title="gamma doctor")
    fine = True
    checks: tuple[tuple[str, Callable[[Settings], str]], ...] = (
        ("Redis", _redis),
        ("model and device", _model),
        ("access", _access),
        ("limits", _limits),
    )
    for subject, check in checks:
        try:
            found, verdict = check(settings), "[green]ok"
        except DoctorError as error:
            found, verdict, fine = str(error), "[red]wrong", False
        table.add_row(subject, found, verdict)
    Console().print(table)
    return fine


class DoctorError(RuntimeError):
    """Something that keeps the service from running; the message says what to do."""


def _redis(settings: Settings) -> str:
    if settings.redis_url is None:
        try:
            return f"private, by `gamma serve`: {server_binary()}, files in {settings.data_dir}"
        except PrivateRedisError as error:
            raise DoctorError(str(error)) from error
    redis = connect(settings.redis_url.get_secret_value())
    try:
        server = cast(dict[str, object], redis.info("server"))
        memory = cast(dict[str, object], redis.info("memory"))
        persistence = cast(dict[str, object], redis.info("persistence"))
        workers = len(Store(redis).live_workers())
    except RedisError as error:
        raise DoctorError(f"GAMMA_REDIS_URL does not answer: {error}") from error
    if memory["maxmemory_policy"] != "noeviction":
        raise DoctorError(
            f"maxmemory-policy is {memory['maxmemory_policy']}: under memory pressure Redis would "
            "drop queued work; set it to noeviction"
        )
    durable = "on" if persistence["aof_enabled"] else "OFF: a restart loses the queue"
    return (
        f"{server['redis_version']}, append-only file {durable}, "
        f"maxmemory {memory['maxmemory_human']}, {workers} live worker(s)"
    )


def _model(settings: Settings) -> str:
    try:
        from model.checkpoint import CheckpointError
        from model.engine import DeviceError
        from worker.main import load_detector
    except ImportError as error:
        raise DoctorError(
            f"{error.name} is missing: fine for the API alone, workers need the extra `worker`"
        ) from error
    try:
        info = load_detector(settings).info
    except (CheckpointError, DeviceError) as error:
        raise DoctorError(str(error)) from error
    return (
        f"{info.name} {info.version} ({info.backbone}, {info.parameters / 1e6:.1f} M parameters) "
        f"on {info.device} in {info.dtype}"
    )


def _access(settings: Settings) -> str:
    if settings.api_keys is None:
        return "no keys: whoever reaches the API may use it"
    return f"keys of {', '.join(settings.api_keys.digests)}"


def _limits(settings: Settings) -> str:
    return (
        f"{settings.max_upload.human_readable()} a file, "
        f"{settings.max_pixels / 1e6:.0f} megapixels, {settings.max_tiles} crops a picture, "
        f"{settings.queue_limit} waiting jobs, {settings.rate_limit or 'any number of'} pictures a "
        f"caller, kept for {settings.retention / 3600:g} h"
    )
