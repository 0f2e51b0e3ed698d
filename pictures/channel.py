"""What a process and its decoder say to each other: lines of JSON, and memory that both see.

Whoever receives trusts nothing: no message makes it take more than it expects.
"""

import fcntl
import json
import mmap
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from typing import Any

_MAX_LINE = 16 * 1024  # bytes


class ChannelError(Exception):
    """The other side has ended, took too long, or says what it must not."""


class Channel:
    """One end of a connected pair of sockets."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._deadline: float | None = None

    def limit(self, seconds: float) -> None:
        """Have what is sent and received from now on end in so many seconds."""
        self._deadline = time.monotonic() + seconds

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            ChannelError: See there.
        """
        try:
            self._end.settimeout(self._left())
            self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise ChannelError(str(error)) from error

    def receive(self) -> dict[str, Any]:
        """Receive a message.

        Raises:
            ChannelError: See there.
        """
        line = b""
        try:
            while not line.endswith(b"\n"):
                self._end.settimeout(self._left())
                part = self._end.recv(_MAX_LINE)
                line += part
                if not part or len(line) > _MAX_LINE:
                    raise ChannelError("no message, or one that is too long")
            message = json.loads(line)
        except (OSError, ValueError) as error:
            raise ChannelError(str(error)) from error
        if not isinstance(message, dict):
            raise ChannelError("a message that is no object")
        return message

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left

    def close(self) -> None:
        """Close this end; the other one sees it."""
        self._end.close()


def shared_memory(size: int) -> int:
    """A file in memory whose size nobody can change; what is not written takes no memory.

    Returns:
        Its descriptor, which whoever calls has to close.
    """
    if not hasattr(os, "memfd_create"):  # macOS
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    memory = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    # Or the other side could cut it off, and reading what was there would end this process.
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return memory


def mapped(file: int) -> mmap.mmap:
    """The bytes of an open file, to read and to write."""
    return mmap.mmap(file, os.fstat(file).st_size)
