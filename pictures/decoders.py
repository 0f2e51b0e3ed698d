"""Decoding in processes of its own, which a picture may bring down without harm."""

import json
import math
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pictures import errors
from pictures.channel import Channel, ChannelError, mapped, shared_memory
from pictures.costs import costs
from pictures.errors import DecodingAbortedError, PictureError
from pictures.header import read_header
from pictures.provenance.statement import (
    Statement,
    fitting,
    may_hold_manifest,
    parse,
    unreadable_manifest,
)

ABORTED = "decoding takes far more memory or time than its size justifies, or ends the decoder"
"""What is said of a picture that brings a decoder down."""

_COMMAND = (sys.executable, "-P", "-W", "ignore", "-m", "pictures.process")
_UNREADABLE = unreadable_manifest("reading it takes too much memory or time")
_ROOM, _PIXEL_ROOM = 2**28, 4  # bytes of what is shared at most: so many, and so many a pixel
_KEPT_MEMORY, _KEPT_SHARED = 64 * 2**20, 40 * 2**20  # bytes between two pictures
_ERRORS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PictureError)
}


@dataclass(frozen=True, slots=True)
class ProvenanceOptions:
    """How origins are read."""

    trust_list: Path | None = None
    """Certificates that signers are trusted by; None: those that come with the package."""
    location: bool = False
    """Whether the place where a photograph was taken is among what is read."""


class Decoders:
    """A few warm processes that decode pictures; usable from any number of threads.

    They know nothing but the pictures that they are given: no setting, no secret. One that ends,
    or that has to be ended, is replaced, and costs the picture that it was at.
    """

    def __init__(
        self, count: int, *, max_pixels: int, provenance: ProvenanceOptions | None = None
    ) -> None:
        """Start the processes; they are ready in a moment.

        Args:
            count: Pictures that are decoded at the same time; further callers wait.
            max_pixels: Largest width times height of a picture.
            provenance: How `statements` reads; None: it finds nothing.
        """
        self._max_pixels = max_pixels
        self._provenance = provenance
        self._free = threading.Semaphore(count)
        arguments = [] if provenance is None else [str(provenance.trust_list or "")]
        self._idle = [_Decoder(max_pixels, arguments) for _ in range(count)]
        self._closed = False

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Pixels (H, W, 3) of a picture file, as `decoding.decode` gives them.

        Raises:
            PictureError: One of its subclasses.
        """
        header = read_header(data, max_pixels=self._max_pixels)
        shape = (header.height, header.width, 3)
        with self._asked({"task": "decode"}, data) as result:
            if len(result) != math.prod(shape):
                raise DecodingAbortedError(ABORTED)
            return np.frombuffer(result, np.uint8).reshape(shape).copy()

    def statements(self, data: bytes) -> list[Statement]:
        """What a picture file says of its origin, by `provenance.reading` and `.manifest`.

        What brings a reader down costs what that reader would have said.

        Returns:
            That of its C2PA manifest first, as much as `statement.fitting` leaves.
        """
        if self._provenance is None:
            return []
        found = self._said("metadata", data) or []
        if may_hold_manifest(data):
            manifest = self._said("manifest", data)
            found = [*([_UNREADABLE] if manifest is None else manifest), *found]
        try:
            return fitting(found)
        except ValueError:
            return []

    def _said(self, task: str, data: bytes) -> list[Statement] | None:
        """The statements of one reader; None if it was brought down."""
        location = self._provenance is not None and self._provenance.location
        try:
            name = read_header(data, max_pixels=self._max_pixels).format
            asked = {"task": task, "format": name, "location": location}
            with self._asked(asked, data) as result:
                return [parse(one) for one in json.loads(bytes(result))]
        except (PictureError, ValueError, TypeError, RecursionError):
            return None

    def preview(self, data: bytes, side: int) -> bytes:
        """A picture file made fit for any screen.

        Args:
            data: The whole file.
            side: The picture is shrunk to side x side pixels, never enlarged.

        Returns:
            JPEG of what `decode` gives.

        Raises:
            PictureError: One of its subclasses.
        """
        with self._asked({"task": "preview", "side": side}, data) as result:
            return bytes(result)

    def composite(self, data: bytes, mask_png: bytes, colours: bytes, alphas: bytes) -> bytes:
        """A picture file blended with the heat map of its mask, see `blending.composite`.

        Returns:
            PNG.

        Raises:
            PictureError: One of its subclasses.
        """
        parts = (data, mask_png, colours, alphas)
        with self._asked({"task": "composite"}, *parts) as result:
            return bytes(result)

    def close(self) -> None:
        """End the processes that are idle now, and the others once they are."""
        self._closed = True
        for decoder in self._idle:
            decoder.end()

    @contextmanager
    def _asked(self, task: Mapping[str, Any], *parts: bytes) -> Iterator[memoryview]:
        """Have a task done for a picture, which is the first of its parts.

        Its result stands in the memory of the process, until the context ends.
        """
        header = read_header(parts[0], max_pixels=self._max_pixels)
        limits = costs(header.width * header.height, len(parts[0]))
        request = {**task, "max_pixels": self._max_pixels}
        with self._free:
            decoder = self._idle.pop()
            try:
                with decoder.ask(request, parts, limits.seconds) as result:
                    yield result
            except DecodingAbortedError:
                decoder.end()
                decoder.start()  # so that the next picture need not wait for it
                raise
            finally:
                if self._closed:
                    decoder.end()
                self._idle.append(decoder)


class _Decoder:
    """One process, our end of its channel, and the memory that is shared with it."""

    def __init__(self, max_pixels: int, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._size = _ROOM + _PIXEL_ROOM * max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the process; what it is asked before it is ready waits."""
        ours, theirs = socket.socketpair()
        memory = shared_memory(self._size)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                [*_COMMAND, str(memory), *self._arguments],
                env=_environment(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(memory,),
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the terminal is for its parent
            )
        self._channel = Channel(ours)
        self._memory = mapped(memory)
        os.close(memory)

    def end(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._channel.close()
            self._memory.close()

    @contextmanager
    def ask(
        self, request: Mapping[str, Any], parts: Sequence[bytes], seconds: float
    ) -> Iterator[memoryview]:
        """Have a task done; its result stands in the shared memory, until the context ends.

        Raises:
            PictureError: One of its subclasses.
        """
        if self._process is None or self._process.poll() is not None:
            self.end()
            self.start()
        try:
            size = self._exchange(request, parts, seconds)
        except (ChannelError, KeyError, TypeError, ValueError) as error:
            raise DecodingAbortedError(ABORTED) from error
        except PictureError:
            raise
        except BaseException:  # an answer that nobody took must not be that of the next picture
            self.end()
            raise
        with memoryview(self._memory)[:size] as result:
            yield result
        used = max(size, sum(map(len, parts)))
        if used > _KEPT_SHARED and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, _KEPT_SHARED, used - _KEPT_SHARED)

    def _exchange(self, request: Mapping[str, Any], parts: Sequence[bytes], seconds: float) -> int:
        """Bytes of the result."""
        self._channel.limit(seconds)
        self._memory.seek(0)
        for part in parts:
            self._memory.write(part)
        self._channel.send({**request, "sizes": [len(part) for part in parts]})
        answer = self._channel.receive()
        if "error" in answer:
            raise _ERRORS[answer["error"]](str(answer["detail"]))
        size = int(answer["size"])
        if not 0 <= size <= len(self._memory):
            raise ValueError("a result of an impossible size")
        return size


def _environment() -> dict[str, str]:
    """All that a decoder is told: where the code is, and how to manage its memory."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LC_ALL": "C.UTF-8",
        # What one picture leaves serves the next one, or half of the time would go into getting it.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_MEMORY),
        "OPENBLAS_NUM_THREADS": "1",
    }
