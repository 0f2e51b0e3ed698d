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
    """Start a child process in a new session.

    So Ctrl-C in the terminal reaches only the parent, which stops its children in order.

    Args:
        command: program and arguments.
        environment: variables added to the environment of this process.
        umask: umask of the child; -1: that of this process.
    """
    return subprocess.Popen(  # noqa: S603 - commands never come from requests
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        umask=umask,
        preexec_fn=_die_with_parent,
    )


def stop(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Terminate a child; kill it after `timeout` seconds."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    """On Linux, have the kernel terminate this child when the parent dies."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
