"""The invisible watermark of Stable Diffusion's own programs (`invisible-watermark`, `dwtDct`).

A message of some bits is written over and over into the picture: each 8 x 8 pixels hold one bit,
row by row, as the remainder of the largest of 4 x 4 low-pass chroma values but the first. It
survives neither scaling nor cropping, and light compression only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import comb

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures.provenance.statement import Says, Source, Statement

FALSE_POSITIVES = 1e-4
"""Share of pictures without a watermark in which one may be reported, at most."""

_BLOCK, _HALF = 8, 4  # pixels, and low-pass values, a side of what holds one bit
_MIN_PIXELS = 256 * 256  # nothing smaller is marked
_MAX_PIXELS = 2**20  # that are looked at: whole rows from the top on
_TRIES = 8  # messages times orders of channels
_STEP = 36.0  # of the remainder, in sums of 2 x 2 chroma values over 2
_YUV = 0.436 / 0.5  # chroma of YUV over that of JPEG, which Pillow gives; both around 128


@dataclass(frozen=True, slots=True)
class Message:
    """A message that a program writes."""

    program: str
    bits: NDArray[np.bool_]

    @property
    def threshold(self) -> int:
        """Bits that have to be right for it to be reported."""
        return threshold(len(self.bits))


def threshold(bits: int) -> int:
    """Fewest right bits that chance gives, to all messages together, in 1 % of what is allowed.

    A picture's bits are not quite independent coins: the margin of 100 is for that.
    """
    allowed = FALSE_POSITIVES / 100 / _TRIES
    tail = 0.0
    for right in range(bits, -1, -1):
        tail += comb(bits, right) / 2**bits
        if tail > allowed:
            return right + 1
    return 0


def _of_bytes(message: bytes) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(message, np.uint8)).astype(bool)


MESSAGES = (
    Message("Stable Diffusion XL", _of_bytes(bytes.fromhex("b3ec907bb19e"))),
    Message("FLUX.1", _of_bytes(bytes.fromhex("2afe879cf52e"))),
    Message("Stable Diffusion 1", _of_bytes(b"StableDiffusionV1")),
    Message("Stable Diffusion 2", _of_bytes(b"SDV2")),
)


def find(pixels: NDArray[np.uint8]) -> Statement | None:
    """Look for a watermark.

    Args:
        pixels: The decoded picture (H, W, 3), sRGB.
    """
    if pixels.shape[0] * pixels.shape[1] < _MIN_PIXELS:
        return None
    for votes, message in product(_votes(pixels), MESSAGES):
        right = int((_read(votes, len(message.bits)) == message.bits).sum())
        if right >= message.threshold:
            details = {
                "generator": message.program,
                "method": "dwtDct",
                "bits": len(message.bits),
                "right_bits": right,
                "needed_bits": message.threshold,
            }
            return Statement(Source.WATERMARK, Says.GENERATED, message.program, details=details)
    return None


def _read(votes: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """The bits of a message of this size: 1 where blocks say so more often than on average.

    The reference decoder compares with a half instead, and misses marks of pictures whose blocks
    lean to one side. A message has about as many ones as zeros.
    """
    whole = len(votes) // size
    if not whole:
        return np.zeros(size, bool)
    shares: NDArray[np.float64] = votes[: whole * size].reshape(whole, size).mean(0)
    above: NDArray[np.bool_] = shares > votes.mean()
    return above


def _votes(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.bool_]]:
    """The bit of each block, row by row; then those of a writer that took red for blue."""
    height, width = (side // _HALF * _HALF for side in pixels.shape[:2])
    columns = width // _BLOCK
    rows = min(height // _BLOCK, max(1, _MAX_PIXELS // (_BLOCK * width)))
    part = np.ascontiguousarray(pixels[: rows * _BLOCK, : columns * _BLOCK])
    low = Image.fromarray(part).reduce(2)
    for ordered in (low, Image.merge("RGB", low.split()[::-1])):
        chroma = np.asarray(ordered.convert("YCbCr").getchannel("Cb"), np.float32)
        low_pass = 2 * ((chroma - 128) * _YUV + 128)
        blocks = low_pass.reshape(rows, _HALF, columns, _HALF).transpose(0, 2, 1, 3)
        strongest = blocks.reshape(rows * columns, _HALF**2)[:, 1:].max(1)
        yield strongest % _STEP > _STEP / 2
