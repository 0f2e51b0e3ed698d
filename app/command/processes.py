"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, umask: int = -1
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own.

    A Ctrl-C in the terminal then reaches the parent alone, which stops its children in order.

    Args:
        command: program and arguments.
        environment: added to this process's own.
        umask: permissions that its files do not get; -1: as of this process.
    """
    return subprocess.Popen(  # noqa: S603 - commands are built here, never from requests
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        umask=umask,
        preexec_fn=_die_with_parent,
    )


def stop(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Ask a child to end; after `timeout` seconds, make it."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    """Linux: have the kernel end this child should the parent be killed."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
