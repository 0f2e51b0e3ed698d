"""Sandbox of a decoder process."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_NO_NEW_PRIVILEGES = 38  # prctl(2)
# Landlock, landlock(7): system call numbers, and the number of file access rights per ABI version.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_FILE_ACCESS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_FILE_ACCESS = 16
_NET_SINCE, _TCP = 4, 0b11  # bind and connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets and signals


def enter_sandbox() -> None:
    """Forbid this process to write, open or execute files and to use TCP, permanently.

    Imports must be complete by then. Without Landlock (Linux before 5.13, macOS) only writing is
    forbidden.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")  # let the OOM killer choose this process first
    version = landlock_version()
    if version < 1:
        return
    libc = ctypes.CDLL(None)
    rules = (ctypes.c_uint64 * 3)(
        (1 << _FILE_ACCESS.get(version, _NEWEST_FILE_ACCESS)) - 1,
        _TCP if version >= _NET_SINCE else 0,
        _SCOPES if version >= _SCOPES_SINCE else 0,
    )
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    ruleset = libc.syscall(ctypes.c_long(_CREATE_RULESET), rules, size, 0)
    if ruleset < 0 or libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return
    libc.syscall(ctypes.c_long(_RESTRICT_SELF), ruleset, 0)
    os.close(ruleset)


def landlock_version() -> int:
    """Return the kernel's Landlock ABI version; below 1 if it has none."""
    if sys.platform != "linux":
        return 0
    call = ctypes.c_long(_CREATE_RULESET)
    return int(ctypes.CDLL(None).syscall(call, None, ctypes.c_size_t(0), 1))
