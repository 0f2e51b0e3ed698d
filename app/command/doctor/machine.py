"""Checks of `gamma doctor` on this machine: disk, model, device, ports, access and limits."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta

from pydantic import ByteSize

from app.command.doctor.findings import Finding, note, ok, wrong
from app.command.supervisor import has_nvidia_driver
from app.contract.directory import Callers, CallersFileError, Directory
from app.contract.ports import PortError, ask, check_port
from app.contract.settings import Settings
from app.http import descriptors
from app.http.binding import OpenBindError, check_binding

_MIN_FREE = 64 * 2**20  # bytes; with less, the append-only file soon cannot be written
_KEY_NOTICE = timedelta(days=7)
_NO_DEVICES = ("", "-1")  # values of CUDA_VISIBLE_DEVICES


def disk(settings: Settings) -> list[Finding]:
    """Check the folder of the private Redis's files."""
    if settings.redis_url is not None:
        return []
    folder = settings.data_dir.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return [
            wrong(
                "disk",
                f"{folder} cannot be written: {error.strerror}",
                "free some space"
                if full
                else "choose a folder that this user can write: --data-dir",
            )
        ]
    free = shutil.disk_usage(folder).free
    found = f"{ByteSize(free).human_readable()} free at {folder}"
    if free < _MIN_FREE:
        return [
            wrong("disk", f"only {found}", "free some space, or choose another folder: --data-dir")
        ]
    if free < settings.redis_maxmemory:
        return [
            note(
                "disk",
                f"{found}, less than GAMMA_REDIS_MAXMEMORY: the file of a full Redis does not fit",
                "lower GAMMA_REDIS_MAXMEMORY, or choose a larger disk: --data-dir",
            )
        ]
    return [ok("disk", found)]


def model(settings: Settings) -> list[Finding]:
    """Load the checkpoint on its device and check its output, as a worker does."""
    try:
        from model.canary import ModelSickError
        from model.checkpoint import CheckpointError
        from model.engine import DeviceError
        from worker.main import load_detector
    except ImportError as error:
        return [
            note(
                "model",
                f"{error.name} is not installed; only workers need it",
                "workers need the extra `worker`: pip install 'gamma-detect[worker]'",
            )
        ]
    try:
        detector = load_detector(settings)
        detector.check()
    except CheckpointError as error:
        return [
            wrong(
                "model",
                str(error),
                "set GAMMA_CHECKPOINT to a readable folder made by save_pretrained (config.json, "
                "model.safetensors) or to a hub id; unset: the built-in model",
            )
        ]
    except DeviceError as error:
        return [wrong("device", str(error), _why_no_gpu())]
    except ModelSickError as error:
        return [
            wrong(
                "model",
                str(error),
                "download or export the checkpoint again; if GAMMA_DEVICE=cpu works with the same "
                "files, the device is faulty",
            )
        ]
    info = detector.info
    return [
        ok(
            "model",
            f"{info.name} {info.version} ({info.backbone}, {info.parameters / 1e6:.1f} M "
            f"parameters, digest {info.digest}) on {info.device} in {info.dtype}",
        )
    ]


def device(settings: Settings) -> list[Finding]:
    """Check that workers use the GPU, if there is one."""
    if settings.device != "auto" or not has_nvidia_driver():
        return []
    try:
        import torch
    except ImportError:
        return []
    if torch.cuda.is_available():
        return []
    return [
        wrong(
            "device",
            "this machine has an NVIDIA driver, but workers would run on the CPU",
            f"{_why_no_gpu()}; if this is intended, set GAMMA_DEVICE=cpu",
        )
    ]


def _why_no_gpu() -> str:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in _NO_DEVICES:
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides all GPUs: unset it, or list those to use"
    if torch.version.cuda is None:
        return (
            "the installed torch is built without CUDA: install a build with CUDA "
            "(https://pytorch.org/get-started/locally)"
        )
    if not has_nvidia_driver():
        return (
            "no NVIDIA driver found: install it; a container needs the NVIDIA Container Toolkit "
            "and `--gpus all`"
        )
    return (
        f"check with `nvidia-smi` that the driver works, that it supports CUDA "
        f"{torch.version.cuda}, and which indices the GPUs have"
    )


def ports(settings: Settings) -> list[Finding]:
    """Check that the ports are free, or used by GAMMA itself."""
    return [
        _port(settings.host, settings.port, "/livez", '"status"', "GAMMA_PORT"),
        _port(
            settings.metrics_host,
            settings.metrics_port,
            "/metrics",
            "gamma_",
            "GAMMA_METRICS_PORT",
        ),
    ]


def _port(host: str, port: int, path: str, mark: str, variable: str) -> Finding:
    try:
        check_port(host, port, variable)
    except PortError as error:
        if error.taken and _answers(host, port, path, mark):
            return ok("port", f"{port} ({variable}): GAMMA is running")
        return wrong("port", error.found, error.advice)
    return ok("port", f"{port} ({variable}) is free")


def _answers(host: str, port: int, path: str, mark: str) -> bool:
    try:
        return mark in ask(host, port, path)[1]
    except OSError:
        return False


def access(settings: Settings) -> list[Finding]:
    """Check who may use the API, and when keys expire."""
    try:
        check_binding(settings)
    except OpenBindError as error:
        return [wrong("access", f"the API would not start on {settings.host}", str(error))]
    if not settings.asks_for_keys:
        if settings.allow_anonymous:
            return [
                note(
                    "access",
                    "no keys (GAMMA_ALLOW_ANONYMOUS): anyone who can connect may use the API",
                    "fine behind a gateway that checks keys; otherwise set GAMMA_API_KEYS",
                )
            ]
        return [ok("access", f"no keys; only this machine can connect to {settings.host}")]
    try:
        callers = Directory(settings).now
    except CallersFileError as error:
        return [wrong("access", str(error), "correct the file of GAMMA_CALLERS_FILE")]
    return [ok("access", f"keys of {', '.join(callers.settings)}"), *_expiring(callers)]


def _expiring(callers: Callers) -> list[Finding]:
    """Callers whose last key has expired or expires within a week."""
    assert callers.keys is not None  # noqa: S101 - the caller has checked it
    soon = datetime.now(UTC) + _KEY_NOTICE
    lasting = {
        key.caller for key in callers.keys.entries if key.expires is None or key.expires > soon
    }
    return [
        note("access", f"all keys of {name} expire within a week", "add a new key")
        for name in callers.settings
        if name not in lasting
    ]


def webhooks(settings: Settings) -> list[Finding]:
    """Check that the webhook settings are safe and take effect."""
    callers = settings.api_keys.entries if settings.api_keys else ()
    if settings.webhook_secrets is not None and len(callers) > 1:
        return [
            note(
                "webhooks",
                f"{len(callers)} callers share GAMMA_WEBHOOK_SECRETS: the receiver of one can "
                "forge messages to another",
                "give each caller its own secret in GAMMA_CALLERS_FILE",
            )
        ]
    if not settings.may_sign_webhooks and settings.webhook_allow is not None:
        return [
            wrong(
                "webhooks",
                "GAMMA_WEBHOOK_ALLOW is set, but webhooks are off because there is no secret",
                'set GAMMA_WEBHOOK_SECRETS="whsec_$(openssl rand -base64 32)" for API and webhooks',
            )
        ]
    return []


def files(settings: Settings) -> list[Finding]:
    """Check that the limit of open files allows `GAMMA_MAX_CONNECTIONS`."""
    needed, allowed = descriptors.needed(settings), descriptors.allowed()
    if needed <= allowed:
        return []
    return [
        wrong(
            "files",
            f"a process may open {allowed} files, but GAMMA_MAX_CONNECTIONS="
            f"{settings.max_connections} needs {needed}",
            f"raise the limit (`ulimit -Hn`, LimitNOFILE, `ulimits` of compose), or set "
            f"GAMMA_MAX_CONNECTIONS={max(1, settings.max_connections - needed + allowed)}",
        )
    ]


def limits(settings: Settings) -> list[Finding]:
    """The most important limits; never wrong."""
    return [
        ok(
            "limits",
            f"{settings.max_upload.human_readable()} per file, "
            f"{settings.max_pixels / 1e6:.0f} megapixels, {settings.max_tiles} crops per picture, "
            f"{settings.queue_limit} waiting jobs, rate limit per caller "
            f"{settings.rate_limit or 'none'}, retention {settings.retention / 3600:g} h",
        )
    ]
