"""Messages between a process and its decoder: JSON lines over a socket, and shared memory.

Received messages are untrusted; their length is limited.
"""

import fcntl
import json
import mmap
import os
import socket
import struct
import tempfile
import time
from collections.abc import Mapping
from typing import Any

FRAME = struct.Struct("<qq")
"""Head of a frame in shared memory, before its pixels: number, and time in ms or -1."""

_MAX_LINE = 16 * 1024  # bytes


class ChannelError(Exception):
    """The peer closed the channel, timed out or sent an invalid message."""


class Channel:
    """One end of a connected pair of sockets."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._deadline: float | None = None

    def set_timeout(self, seconds: float) -> None:
        """Let all sends and receives from now on share a deadline `seconds` away."""
        self._deadline = time.monotonic() + seconds

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            ChannelError: If the peer closed the channel or the deadline passed.
        """
        try:
            self._end.settimeout(self._left())
            self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise ChannelError(str(error)) from error

    def receive(self) -> dict[str, Any]:
        """Receive a message.

        Raises:
            ChannelError: If the peer closed the channel, the deadline passed, or the message is
                too long or not a JSON object.
        """
        line = b""
        try:
            while not line.endswith(b"\n"):
                self._end.settimeout(self._left())
                part = self._end.recv(_MAX_LINE)
                line += part
                if not part or len(line) > _MAX_LINE:
                    raise ChannelError("the message is missing or too long")
            message = json.loads(line)
        except (OSError, ValueError) as error:
            raise ChannelError(str(error)) from error
        if not isinstance(message, dict):
            raise ChannelError("the message is not a JSON object")
        return message

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def close(self) -> None:
        """Close this end; the peer's next receive fails."""
        self._end.close()


def shared_memory(size: int) -> int:
    """Create an anonymous file in memory, sealed to `size` bytes; unwritten pages cost nothing.

    Returns:
        Its file descriptor, to be closed by the caller.
    """
    if not hasattr(os, "memfd_create"):  # macOS
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    memory = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    # Without seals the peer could truncate the file, and reading it would raise SIGBUS here.
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return memory


def mapped(file: int) -> mmap.mmap:
    """Map an open file into memory for reading and writing."""
    return mmap.mmap(file, os.fstat(file).st_size)
