"""Changes of pictures for evaluations: format alignment, crops and degradations.

Every change maps RGB pixels (H, W, 3), uint8, to RGB pixels, deterministically. Encoders are
Pillow's; JPEGs have 4:2:0 chroma subsampling, like those of cameras and messengers.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pictures import decoding
from training.data.labels import LABELS
from training.data.manifest import MAX_PIXELS, Row
from training.data.pixels import encode_jpeg

Pixels = NDArray[np.uint8]
_T = TypeVar("_T", bound=np.generic)

ALIGNED_QUALITY = 96
"""JPEG quality of the paper's format alignment (section 3.1)."""

_LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF"})  # Pillow's names; MPO holds JPEGs


class Format(StrEnum):
    """Format mode of an evaluation."""

    RAW = "raw"
    """Original files."""
    PAPER = "paper"
    """Lossless AI-generated pictures become JPEG 96 (section 3.1 of the paper)."""
    JPEG96 = "jpeg96"
    """Every picture becomes JPEG 96, so that the format does not reveal the class."""


@dataclass(frozen=True, slots=True)
class Change:
    """A named change of pictures."""

    name: str
    apply: Callable[[Pixels], Pixels]


def unchanged(pixels: Pixels) -> Pixels:
    """Return the picture unchanged."""
    return pixels


def jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    """Compress as JPEG with a quality of 1 to 100, 4:2:0."""
    return lambda pixels: _decoded(encode_jpeg(pixels, quality, "4:2:0"))


def webp(quality: int) -> Callable[[Pixels], Pixels]:
    """Compress as lossy WebP with a quality of 1 to 100."""

    def apply(pixels: Pixels) -> Pixels:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "WEBP", quality=quality)
        return _decoded(stream.getvalue())

    return apply


def blur(sigma: float) -> Callable[[Pixels], Pixels]:
    """Apply a Gaussian blur with a standard deviation in pixels."""
    return lambda pixels: np.asarray(
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)), np.uint8
    )


def noise(sigma: float) -> Callable[[Pixels], Pixels]:
    """Add Gaussian noise with a standard deviation in levels of 255 and a fixed seed."""

    def apply(pixels: Pixels) -> Pixels:
        grain = np.random.default_rng(0).normal(0, sigma, pixels.shape)
        return np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8)

    return apply


def resize(factor: float) -> Callable[[Pixels], Pixels]:
    """Resize both sides by a factor, bicubic."""

    def apply(pixels: Pixels) -> Pixels:
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(picture, np.uint8)

    return apply


def crop_share(share: float) -> Callable[[Pixels], Pixels]:
    """Crop to the central share of both sides."""

    def apply(pixels: Pixels) -> Pixels:
        height, width = (max(1, round(side * share)) for side in pixels.shape[:2])
        return crop_center(pixels, height, width)

    return apply


def crop_center(pixels: NDArray[_T], height: int, width: int) -> NDArray[_T]:
    """Return the central part of a picture (H, W, ...) or mask (H, W)."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def screenshot(pixels: Pixels) -> Pixels:
    """Simulate a screenshot that passes through two services.

    Resize 0.8, crop to the central 95 % of both sides, JPEG 85, resize 0.9, WebP 75.
    """
    for step in (resize(0.8), crop_share(0.95), jpeg(85), resize(0.9), webp(75)):
        pixels = step(pixels)
    return pixels


RAW = Change("raw", unchanged)
"""No change."""
JPEG96 = Change("jpeg96", jpeg(ALIGNED_QUALITY))
"""The paper's format alignment."""

DEGRADATIONS: dict[str, dict[float, Change]] = {
    "jpeg": {q: Change(f"jpeg {q}", jpeg(q)) for q in (95, 90, 80, 70, 60, 50)},
    "webp": {q: Change(f"webp {q}", webp(q)) for q in (95, 80, 65, 50)},
    "blur": {s: Change(f"blur {s:g}", blur(s)) for s in (0.5, 1.0, 2.0, 3.0)},
    "noise": {s: Change(f"noise {s:g}", noise(s)) for s in (2.0, 5.0, 10.0)},
    "resize": {f: Change(f"resize {f:g}", resize(f)) for f in (0.5, 0.75, 1.25, 1.5)},
    "crop": {s: Change(f"crop {s:g}", crop_share(s)) for s in (0.9, 0.75, 0.5)},
    "screenshot": {1.0: Change("screenshot", screenshot)},
}
"""Degradations by series and level (quality, sigma, factor or share), from mild to severe."""


def align(row: Row, mode: Format) -> Change:
    """Return the change that a format mode applies to a picture."""
    lossless_fake = LABELS[row.kind].ai_generated and row.format not in _LOSSY
    aligned = mode is Format.JPEG96 or (mode is Format.PAPER and lossless_fake)
    return JPEG96 if aligned else RAW


def _decoded(data: bytes) -> Pixels:
    return decoding.decode(data, max_pixels=MAX_PIXELS)
