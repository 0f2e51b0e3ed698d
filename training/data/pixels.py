"""Files to pixels and back, for the data tools."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures import decoding
from pictures.errors import PictureError
from training.data.manifest import MAX_PIXELS, PictureUnreadableError
from training.output import writing

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


def read_picture(file: Path) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of a picture, decoded as the service does: upright, sRGB, 0 to 255.

    Raises:
        PictureUnreadableError: it cannot be decoded; the message names the file.
        OSError: it cannot be opened.
    """
    try:
        return decoding.decode(file.read_bytes(), max_pixels=MAX_PIXELS)
    except PictureError as error:
        raise PictureUnreadableError(f"{file}: {error}") from error


def read_region(file: Path) -> NDArray[np.bool_]:
    """Region (H, W) of a mask: true where it is not black.

    Raises:
        PictureUnreadableError: it cannot be decoded; the message names the file.
        OSError: it cannot be opened.
    """
    region: NDArray[np.bool_] = np.any(read_picture(file), axis=2)
    return region


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of colours (H, W, 3) or grey levels (H, W)."""
    return _encode(pixels, "PNG")


def encode_region(region: NDArray[np.bool_]) -> bytes:
    """An 8-bit PNG of a region (H, W): 255 inside, 0 outside."""
    return encode_png(region.astype(np.uint8) * 255)


def encode_jpeg(
    pixels: NDArray[np.uint8], quality: int, subsampling: Subsampling = "4:2:0"
) -> bytes:
    """A JPEG of colours (H, W, 3), with the IJG tables of a quality (1 to 100)."""
    return _encode(pixels, "JPEG", quality=quality, subsampling=subsampling)


def write(file: Path, data: bytes) -> None:
    """Write a file; it appears whole or not at all.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    with writing(file) as partial:
        partial.write_bytes(data)


def _encode(pixels: NDArray[np.uint8], image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format, **options)
    return stream.getvalue()
