"""What a decoder gives up before it sees its first picture."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_NO_NEW_PRIVILEGES = 38  # prctl(2)
# Linux's Landlock, landlock(7): the numbers of its system calls, and how many kinds of access to
# files each of its versions knows.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_FILE_ACCESS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_FILE_ACCESS = 16
_NET_SINCE, _TCP = 4, 0b11  # to bind and to connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets, and signals to others


def confine() -> None:
    """Never again write, open or run a file, or connect; whatever needs that has to be loaded.

    Where the kernel has no Landlock (before 5.13, or macOS), the limits on writing are all.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")  # where memory ends, this process ends, and no other
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
    """What the kernel's Landlock can do, from 1 on; below: there is none."""
    if sys.platform != "linux":
        return 0
    call = ctypes.c_long(_CREATE_RULESET)
    return int(ctypes.CDLL(None).syscall(call, None, ctypes.c_size_t(0), 1))
