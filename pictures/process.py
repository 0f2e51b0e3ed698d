"""Decoder process: `python -m pictures.process MEMORY [TRUST]`, with a channel as stdin.

It decodes one picture at a time, with limits of memory and time that depend on its size. It starts
with an empty environment, enters a sandbox without files and network, and keeps open only its
channel and MEMORY, the descriptor of the memory shared with its parent, which contains the input
of a request and then its result. With TRUST (a trust list, or empty for the package's), it reads
provenance too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import mmap
import os
import resource
import socket
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import AvifImagePlugin, Image

from pictures import animation, blending, decoding
from pictures.channel import FRAME, Channel, ChannelError, mapped
from pictures.errors import PictureError
from pictures.header import read_header
from pictures.limits import Limits, limits_for
from pictures.sandbox import enter_sandbox

if TYPE_CHECKING:
    from pictures.origin import Statement

_BAND = 2**18  # pixels copied at once
_QUALITY = 92  # of JPEG: no visible loss, a third of the size of PNG
_MAX_DETAIL = 1000  # characters
_STATM = Path("/proc/self/statm")
_LINE = 200  # maximum bytes in it


def main() -> None:
    """Answer requests until the parent closes the channel."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 2
    Image.init()  # imports all plugins before the sandbox forbids it
    memory, own_memory = mapped(int(sys.argv[1])), _own_memory()
    for trust_list in sys.argv[2:]:
        _add_provenance(trust_list)
    enter_sandbox()
    with socket.socket(fileno=sys.stdin.fileno()) as end:
        channel = Channel(end)
        with contextlib.suppress(ChannelError):
            while True:
                channel.send(_answer(channel.receive(), memory, own_memory))


def _answer(request: dict[str, Any], memory: mmap.mmap, own_memory: int | None) -> dict[str, Any]:
    """Run a task; its result overwrites its input in `memory`."""
    memory.seek(0)
    parts = [memory.read(size) for size in request["sizes"]]
    memory.seek(0)
    try:
        header = read_header(parts[0], max_pixels=request["max_pixels"])
        pixels = header.width * header.height
        _limit(limits_for(pixels, len(parts[0]), request["work"]), own_memory)
        _TASKS[request["task"]](request, memory, *parts)
    except PictureError as error:
        return {"error": type(error).__name__, "detail": str(error)[:_MAX_DETAIL]}
    return {"size": memory.tell()}


def _decode(request: dict[str, Any], result: mmap.mmap, data: bytes) -> None:
    with decoding.upright(data, max_pixels=request["max_pixels"]) as picture:
        _write(picture, result)


def _frames(request: dict[str, Any], result: mmap.mmap, data: bytes) -> None:
    limits = {"most": request["most"], "max_pixels": request["max_pixels"]}
    for moment, picture in animation.decode(data, **limits):
        time_ms = -1 if moment.time_ms is None else moment.time_ms
        result.write(FRAME.pack(moment.number, time_ms))
        _write(picture, result)


def _write(picture: Image.Image, result: mmap.mmap) -> None:
    for box in decoding.bands(picture.size, _BAND):
        result.write(picture.crop(box).tobytes())


def _preview(request: dict[str, Any], result: mmap.mmap, data: bytes) -> None:
    encoded = BytesIO()
    with _upright(request, data) as picture:
        picture.save(encoded, "JPEG", quality=_QUALITY, subsampling="4:4:4")
    result.write(encoded.getbuffer())


def _composite(
    request: dict[str, Any],
    result: mmap.mmap,
    data: bytes,
    mask: bytes,
    colours: bytes,
    alphas: bytes,
) -> None:
    with _upright(request, data) as picture:
        result.write(blending.composite(picture, mask, colours, list(alphas)))


def _upright(
    request: dict[str, Any], data: bytes
) -> contextlib.AbstractContextManager[Image.Image]:
    limits = {name: request[name] for name in ("max_pixels", "side", "frame")}
    return animation.upright(data, **limits)


def _shrink(request: dict[str, Any], result: mmap.mmap, mask: bytes) -> None:
    result.write(blending.shrink(mask, request["side"]))


_TASKS: dict[str, Callable[..., None]] = {
    "decode": _decode,
    "frames": _frames,
    "preview": _preview,
    "composite": _composite,
    "shrink": _shrink,
}


def _add_provenance(trust_list: str) -> None:
    """Load the readers of provenance and add their tasks."""
    from pictures.provenance import reading
    from pictures.provenance.manifest import Manifests

    manifests = Manifests(Path(trust_list) if trust_list else None)

    def read_metadata(request: dict[str, Any], result: mmap.mmap, data: bytes) -> None:
        found = reading.read(data, request["format"], location=request["location"])
        result.write(_as_json(found.statements, incomplete=found.incomplete))

    def read_manifest(request: dict[str, Any], result: mmap.mmap, data: bytes) -> None:
        result.write(_as_json(manifests.read(data, request["format"]), incomplete=False))

    _TASKS.update(metadata=read_metadata, manifest=read_manifest)


def _as_json(found: list[Statement], *, incomplete: bool) -> bytes:
    statements = [dataclasses.asdict(one) for one in found]
    return json.dumps({"statements": statements, "incomplete": incomplete}).encode()


def _own_memory() -> int | None:
    """Open /proc/self/statm, which the sandbox would forbid later; None if there is none."""
    return os.open(_STATM, os.O_RDONLY) if _STATM.exists() else None


def _limit(allowed: Limits, own_memory: int | None) -> None:
    """Set resource limits for the next picture, on top of what the process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + allowed.cpu_seconds
    _lower(resource.RLIMIT_CPU, seconds)
    if own_memory is not None:
        held = int(os.pread(own_memory, _LINE, 0).split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, held + allowed.memory)


def _lower(kind: int, limit: int) -> None:
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


if __name__ == "__main__":
    main()
