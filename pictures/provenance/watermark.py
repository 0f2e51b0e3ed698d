"""The invisible watermark of Stable Diffusion's reference code (`invisible-watermark`, `dwtDct`).

A message is repeated over the picture. Each block of 8 x 8 pixels encodes one bit, row by row, as
the remainder of the largest of its 4 x 4 low-pass chroma values, excluding the first. It does not
survive scaling or cropping, and only light compression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import comb

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import JsonValue

from pictures.origin import Says, Source, Statement

FALSE_POSITIVES = 1e-4
"""Maximum false positive rate: share of pictures without a watermark in which one is reported."""

_BLOCK, _HALF = 8, 4  # side of a block in pixels, and in low-pass values
_MIN_PIXELS = 256 * 256  # smaller pictures are not marked
_MAX_PIXELS = 2**20  # read at most, in whole rows from the top
_TRIES = 8  # messages times channel orders
_STEP = 36.0  # quantisation step, in sums of 2 x 2 chroma values divided by 2
_YUV = 0.436 / 0.5  # ratio of YUV chroma to Pillow's (JPEG); both centred at 128


@dataclass(frozen=True, slots=True)
class Message:
    """A known message and the program that writes it."""

    program: str
    bits: NDArray[np.bool_]

    @property
    def threshold(self) -> int:
        """Minimum number of matching bits for a detection."""
        return threshold(len(self.bits))


def threshold(bits: int) -> int:
    """Minimum number of matching bits out of `bits` for a detection.

    It keeps the false positive rate of all messages together at 1 % of `FALSE_POSITIVES`, if bits
    were independent; the margin is for their correlation.
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
    """Detect a watermark; None if there is none.

    Args:
        pixels: The decoded picture (H, W, 3), sRGB.
    """
    height, width = pixels.shape[:2]
    if height * width < _MIN_PIXELS or min(height, width) < _BLOCK:
        return None
    for votes, message in product(_votes(pixels), MESSAGES):
        right = int((_read(votes, len(message.bits)) == message.bits).sum())
        if right >= message.threshold:
            details: dict[str, JsonValue] = {
                "generator": message.program,
                "method": "dwtDct",
                "bits": len(message.bits),
                "right_bits": right,
                "needed_bits": message.threshold,
            }
            return Statement(Source.WATERMARK, Says.GENERATED, message.program, details=details)
    return None


def _read(votes: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Decode a message of `size` bits: 1 where blocks vote for it more often than on average.

    The reference decoder compares with one half instead and misses watermarks in pictures whose
    blocks are biased. Messages have about as many ones as zeros.
    """
    whole = len(votes) // size
    if not whole:
        return np.zeros(size, bool)
    shares: NDArray[np.float64] = votes[: whole * size].reshape(whole, size).mean(0)
    above: NDArray[np.bool_] = shares > votes.mean()
    return above


def _votes(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.bool_]]:
    """The bit of each block, row by row; then the same with red and blue swapped."""
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
