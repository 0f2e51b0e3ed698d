"""The process of a decoder: `python -m pictures.process MEMORY`, a channel as standard input.

It decodes one picture after the other, within limits of memory and time that follow the size of
each. It starts with an empty environment and holds no open file but its channel and MEMORY, the
descriptor of what it shares with its parent: files and masks lie there when a request comes, and
the result when it is answered.
"""

import contextlib
import math
import mmap
import resource
import socket
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import AvifImagePlugin, Image

from pictures import blending, decoding
from pictures.channel import Channel, ChannelError, mapped
from pictures.costs import Costs, costs
from pictures.errors import PictureError
from pictures.header import read_header

_BAND = 2**18  # pixels that are copied at once
_QUALITY = 92  # of JPEG: nothing is seen of it, at a third of the bytes of PNG
_MAX_DETAIL = 1000  # characters
_STATM = Path("/proc/self/statm")
_OOM_SCORE = Path("/proc/self/oom_score_adj")


def main() -> None:
    """Answer until the other end is closed."""
    _confine()
    memory = mapped(int(sys.argv[1]))
    with socket.socket(fileno=sys.stdin.fileno()) as end:
        channel = Channel(end)
        with contextlib.suppress(ChannelError):
            while True:
                channel.send(_answer(channel.receive(), memory))


def _answer(request: dict[str, Any], memory: mmap.mmap) -> dict[str, Any]:
    """Do a task; its result takes the place of what it was done with."""
    memory.seek(0)
    parts = [memory.read(size) for size in request["sizes"]]
    memory.seek(0)
    try:
        header = read_header(parts[0], max_pixels=request["max_pixels"])
        _limit(costs(header.width * header.height, len(parts[0])))
        _TASKS[request["task"]](request, memory, *parts)
    except PictureError as error:
        return {"error": type(error).__name__, "detail": str(error)[:_MAX_DETAIL]}
    return {"size": memory.tell()}


def _decode(request: dict[str, Any], result: mmap.mmap, data: bytes) -> None:
    with decoding.upright(data, max_pixels=request["max_pixels"]) as picture:
        for box in decoding.bands(picture.size, _BAND):
            result.write(picture.crop(box).tobytes())


def _preview(request: dict[str, Any], result: mmap.mmap, data: bytes) -> None:
    encoded = BytesIO()
    limits = {"max_pixels": request["max_pixels"], "side": request["side"]}
    with decoding.upright(data, **limits) as picture:
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
    with decoding.upright(data, max_pixels=request["max_pixels"]) as picture:
        result.write(blending.composite(picture, mask, colours, list(alphas)))


_TASKS: dict[str, Callable[..., None]] = {
    "decode": _decode,
    "preview": _preview,
    "composite": _composite,
}


def _confine() -> None:
    """Give up what no decoder needs."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 2
    Image.init()  # whatever Pillow would import later
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")  # where memory ends, this process ends, and no other


def _limit(allowed: Costs) -> None:
    """Have this process ended should the next picture take more than is allowed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + allowed.cpu_seconds
    _lower(resource.RLIMIT_CPU, seconds)
    if _STATM.exists():  # Linux
        held = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, held + allowed.memory)


def _lower(kind: int, limit: int) -> None:
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


if __name__ == "__main__":
    main()
