"""Memory limit and peak memory of a process."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from tests.deploy.files import compose

_UNITS = {"m": 2**20, "g": 2**30}


def limit_memory(process: psutil.Process, service: str) -> None:
    """Limit a process to the memory that the compose file gives a service."""
    given = compose()["services"][service]["mem_limit"]
    limit = int(given[:-1]) * _UNITS[given[-1]]
    process.rlimit(psutil.RLIMIT_DATA, (limit, limit))


def forget_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak_memory(process: psutil.Process) -> int:
    """Peak memory of a process since the last `forget_peak`, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) * 1024
