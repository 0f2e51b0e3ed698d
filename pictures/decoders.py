"""Decoding in separate processes, so that a hostile picture can crash only its decoder."""

import json
import math
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pictures import errors
from pictures.channel import FRAME, Channel, ChannelError, mapped, shared_memory
from pictures.errors import DecodingAbortedError, PictureError
from pictures.header import read_header
from pictures.limits import limits_for
from pictures.provenance.statement import (
    Reading,
    fitting,
    may_hold_manifest,
    parse,
    unreadable_manifest,
)

ABORTED = "decoding takes far more memory or time than its size justifies, or crashes the decoder"
"""Message of `DecodingAbortedError`."""

_COMMAND = (sys.executable, "-P", "-W", "ignore", "-m", "pictures.process")
_UNREADABLE = unreadable_manifest("reading it takes too much memory or time")
_ROOM, _PIXEL_ROOM = 2**28, 4  # size of the shared memory: bytes, plus bytes per pixel
_KEPT_MEMORY, _KEPT_SHARED = 64 * 2**20, 40 * 2**20  # bytes kept between two pictures
_ERRORS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PictureError)
}


class Frame(NamedTuple):
    """A decoded frame of an animation, or page of a TIFF; a still has one."""

    number: int
    """1 is the first that is displayed."""
    time_ms: int | None
    """Time at which it is displayed first; None for a page."""
    pixels: NDArray[np.uint8]
    """(H, W, 3), sRGB, 0 to 255."""


@dataclass(frozen=True, slots=True)
class ProvenanceOptions:
    """How provenance is read."""

    trust_list: Path | None = None
    """Certificates of trusted signers; None for those in the package."""
    location: bool = False
    """Whether to read the place where a photograph was taken."""


class Decoders:
    """A pool of warm decoder processes; thread-safe.

    The processes get only pictures: no settings, no secrets. A process that crashes or exceeds its
    limits is replaced; only the picture it was decoding fails.
    """

    def __init__(
        self, count: int, *, max_pixels: int, provenance: ProvenanceOptions | None = None
    ) -> None:
        """Start the processes without waiting until they are ready.

        Args:
            count: Number of processes; further callers wait.
            max_pixels: Maximum width times height of a picture.
            provenance: Options of `statements`; None: it returns nothing.
        """
        self._max_pixels = max_pixels
        self._provenance = provenance
        self._free = threading.Semaphore(count)
        arguments = [] if provenance is None else [str(provenance.trust_list or "")]
        self._idle = [_Decoder(max_pixels, arguments) for _ in range(count)]
        self._closed = False

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Decode a picture file as `decoding.decode` does.

        Returns:
            Pixels (H, W, 3), sRGB, 0 to 255.

        Raises:
            PictureError: If the picture cannot be decoded.
        """
        header = read_header(data, max_pixels=self._max_pixels)
        shape = (header.height, header.width, 3)
        with self._run({"task": "decode"}, data) as result:
            if len(result) != math.prod(shape):
                raise DecodingAbortedError(ABORTED)
            return np.frombuffer(result, np.uint8).reshape(shape).copy()

    def frames(self, data: bytes, most: int) -> list[Frame]:
        """Decode frames as `animation.decode` does.

        If decoding several of them exceeds the limits, only the first is decoded.

        Args:
            data: The whole file.
            most: Maximum number of frames.

        Returns:
            At least one frame; all have the same size.

        Raises:
            PictureError: If the first frame cannot be decoded.
        """
        if most > 1:
            with suppress(DecodingAbortedError):
                return self._frames(data, most)
        return [Frame(1, 0, self.decode(data))]

    def _frames(self, data: bytes, most: int) -> list[Frame]:
        header = read_header(data, max_pixels=self._max_pixels)
        shape = (header.height, header.width, 3)
        size = FRAME.size + math.prod(shape)
        with self._run({"task": "frames", "most": most, "work": self._max_pixels}, data) as result:
            count, rest = divmod(len(result), size)
            if rest or not 0 < count <= most:
                raise DecodingAbortedError(ABORTED)
            found = []
            for at in range(0, len(result), size):
                number, time_ms = FRAME.unpack_from(result, at)
                pixels = np.frombuffer(result[at + FRAME.size : at + size], np.uint8)
                moment = None if time_ms < 0 else time_ms
                found.append(Frame(number, moment, pixels.reshape(shape).copy()))
            return sorted(found, key=lambda frame: frame.number)

    def statements(self, data: bytes) -> Reading:
        """Read what a picture file states about its provenance.

        If a reader crashes, only its own statements are missing.

        Returns:
            Statements, those of its C2PA manifest first, limited by `statement.fitting`.
        """
        if self._provenance is None:
            return Reading()
        readings = [self._read("metadata", data)]
        if may_hold_manifest(data):
            manifest = self._read("manifest", data)
            readings.insert(0, manifest or Reading([_UNREADABLE], incomplete=True))
        found = [one for reading in readings if reading for one in reading.statements]
        incomplete = any(reading is None or reading.incomplete for reading in readings)
        try:
            return Reading(fitting(found), incomplete)
        except ValueError:
            return Reading(incomplete=True)

    def _read(self, task: str, data: bytes) -> Reading | None:
        """The statements of one reader; None if it failed or crashed."""
        location = self._provenance is not None and self._provenance.location
        try:
            name = read_header(data, max_pixels=self._max_pixels).format
            request = {"task": task, "format": name, "location": location}
            with self._run(request, data) as result:
                found = json.loads(bytes(result))
            return Reading([parse(one) for one in found["statements"]], bool(found["incomplete"]))
        except (PictureError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def preview(self, data: bytes, side: int, frame: int = 1) -> bytes:
        """Make a JPEG preview of a picture file.

        Args:
            data: The whole file.
            side: The preview fits into side x side pixels; it is never enlarged.
            frame: Number of the frame or page.

        Raises:
            PictureError: If the picture cannot be decoded.
        """
        with self._run(self._of_frame("preview", side, frame), data) as result:
            return bytes(result)

    def composite(
        self,
        data: bytes,
        mask_png: bytes,
        colours: bytes,
        alphas: bytes,
        side: int | None = None,
        frame: int = 1,
    ) -> bytes:
        """Blend a picture file with the heat map of its mask, as `blending.composite` does.

        Args:
            data: The whole file.
            mask_png: 8-bit grey PNG.
            colours: RGB of each mask value.
            alphas: Opacity of each mask value.
            side: The result fits into side x side pixels; None keeps the picture's size.
            frame: Number of the frame or page.

        Returns:
            PNG.

        Raises:
            PictureError: If the picture cannot be decoded.
        """
        parts = (data, mask_png, colours, alphas)
        with self._run(self._of_frame("composite", side, frame), *parts) as result:
            return bytes(result)

    def _of_frame(self, task: str, side: int | None, frame: int) -> dict[str, Any]:
        work = self._max_pixels if frame > 1 else 0
        return {"task": task, "side": side, "frame": frame, "work": work}

    def shrink(self, mask_png: bytes, side: int) -> bytes:
        """Shrink a mask as `blending.shrink` does.

        Raises:
            PictureError: If the mask cannot be decoded.
        """
        with self._run({"task": "shrink", "side": side}, mask_png) as result:
            return bytes(result)

    def close(self) -> None:
        """End idle processes now and busy ones after their current picture."""
        self._closed = True
        for decoder in self._idle:
            decoder.end()

    @contextmanager
    def _run(self, task: Mapping[str, Any], *parts: bytes) -> Iterator[memoryview]:
        """Run a task in a decoder; `parts[0]` is the picture file.

        Yields:
            The result, a view of shared memory that is valid within the context.
        """
        header = read_header(parts[0], max_pixels=self._max_pixels)
        request = {"work": 0, **task, "max_pixels": self._max_pixels}
        limits = limits_for(header.width * header.height, len(parts[0]), request["work"])
        with self._free:
            decoder = self._idle.pop()
            try:
                with decoder.ask(request, parts, limits.seconds) as result:
                    yield result
            except DecodingAbortedError:
                decoder.end()
                decoder.start()  # now, so that the next picture does not wait for the start
                raise
            finally:
                if self._closed:
                    decoder.end()
                self._idle.append(decoder)


class _Decoder:
    """One decoder process with its channel and its shared memory."""

    def __init__(self, max_pixels: int, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._size = _ROOM + _PIXEL_ROOM * max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the process; requests sent before it is ready wait in the channel."""
        local, remote = socket.socketpair()
        memory = shared_memory(self._size)
        with remote:
            self._process = subprocess.Popen(  # noqa: S603 - no part of it is user input
                [*_COMMAND, str(memory), *self._arguments],
                env=_environment(),
                stdin=remote.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(memory,),
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal must reach only the parent
            )
        self._channel = Channel(local)
        self._memory = mapped(memory)
        os.close(memory)

    def end(self) -> None:
        """Kill the process."""
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
        """Run a task.

        Yields:
            The result, a view of shared memory that is valid within the context.

        Raises:
            DecodingAbortedError: If the process ended, timed out or gave an invalid answer.
            PictureError: If the process reports one.
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
        except BaseException:  # a late answer must not be taken for that of the next picture
            self.end()
            raise
        with memoryview(self._memory)[:size] as result:
            yield result
        used = max(size, sum(map(len, parts)))
        if used > _KEPT_SHARED and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, _KEPT_SHARED, used - _KEPT_SHARED)

    def _exchange(self, request: Mapping[str, Any], parts: Sequence[bytes], seconds: float) -> int:
        """Send a request and wait for the answer; returns the size of the result in bytes."""
        self._channel.set_timeout(seconds)
        self._memory.seek(0)
        for part in parts:
            self._memory.write(part)
        self._channel.send({**request, "sizes": [len(part) for part in parts]})
        answer = self._channel.receive()
        if "error" in answer:
            raise _ERRORS[answer["error"]](str(answer["detail"]))
        size = int(answer["size"])
        if not 0 <= size <= len(self._memory):
            raise ValueError("result size out of range")
        return size


def _environment() -> dict[str, str]:
    """Environment of a decoder: import path and memory allocator settings only."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LC_ALL": "C.UTF-8",
        # Reuse freed memory for the next picture; allocating it again takes half of the time.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_MEMORY),
        "OPENBLAS_NUM_THREADS": "1",
    }
