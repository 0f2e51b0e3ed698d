"""Augmentation of Wang et al. 2020, after a simulated history of earlier JPEG and resize.

Blur and compression have a limited range of influence (`MARGIN`). So augmenting a window gives the
same pixels as augmenting the whole picture, if the window starts on the compression grid (`GRID`)
and extends `MARGIN` beyond the crop; `training.data.dataset` cuts such windows.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.config import AugmentSettings
from training.data.changes import ALIGNED_QUALITY

Picture = NDArray[np.uint8]
Region = NDArray[np.uint8]

GRID = 16
"""Size of a coding unit of a JPEG with 4:2:0 subsampling, pixels."""
MARGIN = 32
"""Maximum influence of a window's edge, pixels: blur, coding unit, and chroma upsampling of the
neighbouring unit."""

cv2.setNumThreads(0)  # the loader processes run in parallel


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Sampled augmentation of one picture (or of both pictures of a pair)."""

    jitter: tuple[float, float, float, float] | None
    """Factors of brightness, contrast and saturation, and hue shift (fraction of the circle)."""
    sigma: float | None
    """Standard deviation of the blur, pixels."""
    quality: int | None
    """JPEG quality, 1 to 100."""
    encoder: str
    """JPEG encoder: `cv2` or `pil`."""
    flip: bool
    """Whether the crop is mirrored."""
    earlier: tuple[int, int, int] | None = None
    """Earlier compression: quality, and row and column offset of its grid (0 to 15)."""
    scale: float | None = None
    """Resize factor."""
    resized_first: bool = False
    """Whether to resize before the earlier compression, not after."""
    full_chroma: bool = False
    """Whether compressions have no chroma subsampling."""


def draw(settings: AugmentSettings, rng: np.random.Generator) -> Augmentation:
    """Sample an augmentation; the number of random values does not depend on the result."""
    jitters, blurs, compresses, by_cv2, flips = rng.random(5)
    factors = rng.uniform(-1, 1, 4) * (
        settings.brightness,
        settings.contrast,
        settings.saturation,
        settings.hue,
    )
    sigma = settings.blur_sigma * (1 - rng.random())  # (0, blur_sigma]
    low, high = settings.jpeg_quality
    quality = int(rng.integers(low, high + 1))
    b, c, s, hue = (float(factor) for factor in factors)
    earlier, rescaled, place = rng.random(3)
    top, left = rng.integers(0, GRID, 2).tolist()
    first = int(rng.integers(low, high + 1)), top, left
    smallest, largest = np.log(settings.scale)
    aligned, full_chroma, order = rng.random(3)
    if aligned < settings.aligned:
        quality = ALIGNED_QUALITY
    return Augmentation(
        jitter=(1 + b, 1 + c, 1 + s, hue) if jitters < settings.jitter else None,
        sigma=sigma if blurs < settings.probability else None,
        quality=quality if compresses < settings.compression_probability else None,
        encoder="cv2" if by_cv2 < 0.5 else "pil",
        flip=bool(flips < settings.flip),
        earlier=first if earlier < settings.earlier_jpeg else None,
        scale=float(np.exp(smallest + place * (largest - smallest)))
        if rescaled < settings.rescale
        else None,
        resized_first=bool(order < 0.5),
        full_chroma=bool(full_chroma < settings.full_chroma),
    )


def apply_history(
    picture: Picture, region: Region, augmentation: Augmentation
) -> tuple[Picture, Region]:
    """Apply the earlier compression and the resize to a whole picture.

    Args:
        picture: RGB pixels (H, W, 3).
        region: Its region mask (H, W).
        augmentation: Sampled augmentation.

    Returns:
        Pixels (H', W', 3) and mask (H', W').
    """
    if not augmentation.resized_first:
        picture = _compress_earlier(picture, augmentation)
    if augmentation.scale is not None:
        height, width = (max(1, round(side * augmentation.scale)) for side in region.shape)
        how = cv2.INTER_AREA if augmentation.scale < 1 else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)
        mask = cv2.resize(region, (width, height), interpolation=cv2.INTER_NEAREST)
        region = np.asarray(mask, np.uint8)
    if augmentation.resized_first:
        picture = _compress_earlier(picture, augmentation)
    return picture, region


def _compress_earlier(picture: Picture, augmentation: Augmentation) -> Picture:
    if augmentation.earlier is None:
        return picture
    quality, top, left = augmentation.earlier
    wider = cv2.copyMakeBorder(picture, top, 0, left, 0, cv2.BORDER_REFLECT)
    return _compress(np.asarray(wider, np.uint8), quality, augmentation)[top:, left:]


def apply_photometric(picture: Picture, augmentation: Augmentation) -> Picture:
    """Apply colour jitter, blur and compression, in this order; masks do not change.

    Args:
        picture: RGB pixels (H, W, 3).
        augmentation: Sampled augmentation.

    Returns:
        Pixels (H, W, 3), a new array if anything changes.
    """
    if augmentation.jitter is not None:
        picture = _jitter(picture, *augmentation.jitter)
    if augmentation.sigma is not None:
        picture = np.asarray(
            cv2.GaussianBlur(picture, (0, 0), augmentation.sigma, borderType=cv2.BORDER_REFLECT),
            np.uint8,
        )
    if augmentation.quality is not None:
        picture = _compress(picture, augmentation.quality, augmentation)
    return picture


def _compress(picture: Picture, quality: int, augmentation: Augmentation) -> Picture:
    """Compress as JPEG and decode."""
    if augmentation.encoder == "cv2":
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if augmentation.full_chroma:
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        _, data = cv2.imencode(".jpg", bgr, options)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
    stream = io.BytesIO()
    chroma = "4:4:4" if augmentation.full_chroma else "4:2:0"
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling=chroma)
    return np.asarray(Image.open(stream))


def _jitter(
    picture: Picture, brightness: float, contrast: float, saturation: float, hue: float
) -> Picture:
    values = picture.astype(np.float32) * brightness  # (H, W, 3)
    mean = _grey(values).mean()
    values = mean + (values - mean) * contrast
    grey = _grey(values)[..., None]
    values = np.clip(grey + (values - grey) * saturation, 0, 255) / np.float32(255)
    hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV)  # hue 0 to 360
    hsv[..., 0] = (hsv[..., 0] + 360 * hue) % 360
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.asarray(np.rint(np.clip(turned, 0, 1) * 255), np.uint8)


def _grey(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the luma (H, W) of RGB values (H, W, 3), ITU-R BT.601."""
    return values @ np.array([0.299, 0.587, 0.114], np.float32)
