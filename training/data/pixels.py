"""Reading and writing pictures for the data tools."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from pictures import decoding, tiff
from pictures.errors import PictureError
from pictures.finding import name_of
from pictures.header import read_header
from training.data.manifest import MAX_PIXELS, PictureUnreadableError
from training.output import writing

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]

_ORIENTATION_TAG = 0x0112
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).T,
    8: np.rot90,
}


def read_picture(file: Path) -> NDArray[np.uint8]:
    """Decode a picture like the service: pixels (H, W, 3), upright, sRGB, 0 to 255.

    Raises:
        PictureUnreadableError: It cannot be decoded; the message names the file.
        OSError: It cannot be opened.
    """
    try:
        return decoding.decode(file.read_bytes(), max_pixels=MAX_PIXELS)
    except PictureError as error:
        raise PictureUnreadableError(f"{name_of(file)}: {error}") from error


def pillow_orientation(data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) of the pixels that Pillow decodes.

    1 for formats that the service does not support.
    """
    try:
        return read_header(data, max_pixels=MAX_PIXELS).orientation
    except PictureError:
        return tiff.UPRIGHT


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) of the stored pixels of a decodable picture."""
    header = read_header(data, max_pixels=MAX_PIXELS)
    if header.format != "TIFF":
        return header.orientation
    with Image.open(io.BytesIO(tiff.pixels_only(data)), formats=("TIFF",)) as picture:
        assert isinstance(picture, TiffImageFile)  # noqa: S101 - tells mypy
        return int(picture.tag_v2.get(_ORIENTATION_TAG, tiff.UPRIGHT))


def turn(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (1 to 8) to stored values (H, W)."""
    turned: NDArray[Any] = _TURNS.get(orientation, np.asarray)(values)
    return turned


def read_region(file: Path) -> NDArray[np.bool_]:
    """Read the region (H, W) of a mask: true where it is not black.

    Raises:
        PictureUnreadableError: It cannot be decoded; the message names the file.
        OSError: It cannot be opened.
    """
    region: NDArray[np.bool_] = np.any(read_picture(file), axis=2)
    return region


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB pixels (H, W, 3) or grey levels (H, W) as PNG."""
    return _encode(pixels, "PNG")


def encode_region(region: NDArray[np.bool_]) -> bytes:
    """Encode a region (H, W) as 8-bit PNG: 255 inside, 0 outside."""
    return encode_png(region.astype(np.uint8) * 255)


def encode_jpeg(
    pixels: NDArray[np.uint8], quality: int, subsampling: Subsampling = "4:2:0"
) -> bytes:
    """Encode RGB pixels (H, W, 3) as JPEG with a quality of 1 to 100."""
    return _encode(pixels, "JPEG", quality=quality, subsampling=subsampling)


def shorten(name: str, most: int = 180) -> str:
    """Return a name cut to `most` bytes of UTF-8: a file name has at most 255."""
    return name.encode()[:most].decode(errors="ignore")


def write(file: Path, data: bytes) -> None:
    """Write a file atomically.

    Raises:
        OSError: It cannot be written.
    """
    with writing(file) as partial:
        partial.write_bytes(data)


def _encode(pixels: NDArray[np.uint8], image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format, **options)
    return stream.getvalue()
