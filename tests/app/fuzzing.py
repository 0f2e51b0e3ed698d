"""Damaged pictures, and the process that reads them: the test has to outlive what it provokes.

`python -m tests.app.fuzzing SEED CASES` prints the number of each case before it is tried, then
one line with the outcomes; it ends with a traceback or a signal where a decoder does worse than
to refuse.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import random
import resource
import signal
import struct
import sys
import warnings
from collections import Counter

import numpy as np
import psutil
from PIL import Image

from app.http.pictures import inspect
from app.http.problems import ServiceError
from pictures.decoders import Decoders
from pictures.errors import PictureError
from tests.browser import files as made
from tests.samples import (
    encoded,
    every_format,
    heic,
    heif_grid,
    quarters,
    srgb_profile,
)

MAX_PIXELS = 4_000_000
MAX_MEMORY = 2 * 2**30  # bytes of address space beyond what the imports took
MAX_SECONDS = 60  # for one case, on a busy machine
_SIGNATURE = 12  # bytes that are rarely damaged, so that files are still recognised
_HEADER = 600  # bytes that are damaged more often
_MADE = ("apng small frame", "png 16 bits rgb, transparent", "gif small frame", "avif nclx 12 13")
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def originals() -> list[bytes]:
    """Valid files that together cover every branch of the decoders."""
    picture = quarters()
    clear = picture.convert("RGBA")
    clear.putalpha(picture.convert("L"))
    indexed = picture.quantize(4)
    sixteen = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    linear = srgb_profile().replace("sRGB".encode("utf-16-be"), "line".encode("utf-16-be"))

    def two() -> dict[str, object]:
        return {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]}

    return [
        *every_format().values(),
        encoded(picture, "JPEG", progressive=True, icc_profile=linear),
        encoded(picture.convert("CMYK"), "JPEG"),
        encoded(picture.convert("L"), "JPEG"),
        encoded(picture, "MPO", **two()),
        encoded(clear, "PNG", **two()),
        encoded(indexed, "PNG", transparency=1, icc_profile=linear),
        encoded(sixteen, "PNG"),
        encoded(picture.convert("1"), "PNG"),
        encoded(indexed, "GIF", transparency=1, **two()),
        encoded(indexed, "BMP"),
        encoded(clear, "BMP"),
        encoded(clear, "WEBP", lossless=True, icc_profile=linear),
        encoded(clear, "WEBP", **two()),
        encoded(sixteen, "TIFF"),
        encoded(picture, "TIFF", compression="tiff_jpeg"),
        encoded(clear, "TIFF", compression="tiff_deflate", tiffinfo={322: 16, 323: 16}),
        encoded(picture.convert("1"), "TIFF", compression="group4"),
        encoded(picture.convert("CMYK"), "TIFF", icc_profile=linear, **two()),
        encoded(clear, "AVIF", icc_profile=linear),
        _undated(encoded(picture, "AVIF", **two())),
        heic("alpha"),
        heic("ten"),
        heic("two"),
        heif_grid(2, 2, 128, 96),
        *(made.FILES[name]() for name in _MADE),
        made.HDR["png 9 16"](),
    ]


def _undated(avif: bytes) -> bytes:
    """An animation without creation times, so that it is reproducible."""
    data = bytearray(avif)
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(kind) + 8  # behind version and flags; two times of 64 bits
        data[at : at + 16] = bytes(16)
    return bytes(data)


def damaged(files: list[bytes], seed: int, case: int) -> bytes:
    """A damaged file; deterministic."""
    generator = random.Random(f"{seed}/{case}")
    data = bytearray(files[case % len(files)])
    for _ in range(generator.randint(1, 3)):
        (fault,) = generator.choices(_FAULTS, _SHARES)
        fault(data, generator, files)
    return bytes(data)


def _place(data: bytearray, generator: random.Random) -> int:
    end = min(len(data), _HEADER) if generator.random() < 0.6 else len(data)
    start = 0 if generator.random() < 0.05 else min(_SIGNATURE, end)
    return generator.randint(start, end)


def _flip(data: bytearray, generator: random.Random, _: list[bytes]) -> None:
    for _ in range(generator.randint(1, 8)):
        at = _place(data, generator)
        data[at : at + 1] = bytes([generator.randrange(256)])


def _overwrite(data: bytearray, generator: random.Random, _: list[bytes]) -> None:
    order = generator.choice("<>")
    size, code = generator.choice(((2, "H"), (4, "I")))
    number = generator.choice(_EXTREMES) & (2 ** (8 * size) - 1)
    at = _place(data, generator)
    data[at : at + size] = struct.pack(order + code, number)


def _truncate(data: bytearray, generator: random.Random, _: list[bytes]) -> None:
    del data[generator.randrange(len(data) + 1) :]


def _splice(data: bytearray, generator: random.Random, files: list[bytes]) -> None:
    other = generator.choice(files)
    data[_place(data, generator) :] = other[generator.randrange(len(other)) :]


def _remove(data: bytearray, generator: random.Random, _: list[bytes]) -> None:
    at = _place(data, generator)
    del data[at : at + generator.randint(1, 40)]


def _repeat(data: bytearray, generator: random.Random, _: list[bytes]) -> None:
    at = _place(data, generator)
    part = data[at : at + generator.randint(1, 200)]
    data[at:at] = part * generator.randint(1, 20)


_FAULTS = (_flip, _overwrite, _truncate, _splice, _remove, _repeat)
_SHARES = (4, 3, 1, 1, 1, 1)


def read(data: bytes, decoders: Decoders) -> str:
    """What becomes of a file in the API and in the worker.

    Raises:
        AssertionError: API and worker are of two minds.
    """
    try:
        header = inspect(data, MAX_PIXELS) if data else None
    except ServiceError as error:
        # The worker must also refuse what the API refuses.
        try:
            decoders.decode(data)
        except PictureError:
            return str(error.code)
        raise AssertionError(f"decoded, though the header is {error.code}") from error
    if header is None:
        return "empty"
    try:
        height, width, _ = decoders.decode(data).shape
    except PictureError as error:
        return type(error).__name__
    assert (header.width, header.height) == (width, height)
    with Image.open(io.BytesIO(decoders.preview(data, 16))) as preview:
        assert max(preview.size) <= 16
    return "decoded"


def main(seed: int, cases: int) -> None:
    """Read all cases, within limits of memory and time."""
    with contextlib.closing(Decoders(1, max_pixels=MAX_PIXELS)) as decoders:
        read_all(seed, cases, decoders)


def read_all(seed: int, cases: int, decoders: Decoders) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    files = originals()
    assert {read(file, decoders) for file in files} == {"decoded"}
    with open("/proc/self/statm") as pages:
        taken = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_MEMORY,) * 2)
    outcomes: Counter[str] = Counter()
    early = 0.0
    for case in range(cases):
        print(case, flush=True)
        signal.alarm(MAX_SECONDS)  # ends the process, even inside a decoder
        outcomes[read(damaged(files, seed, case), decoders)] += 1
        if case == cases // 3:
            early = _resident()
    signal.alarm(0)
    print(json.dumps({"outcomes": outcomes, "growth": _resident() - early}))


def _resident() -> float:
    """MiB of memory that this process and its decoder hold."""
    process = psutil.Process()
    return sum(one.memory_info().rss for one in (process, *process.children())) / 2**20


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
