"""What the header of an upload says, read without decoding a pixel."""

from __future__ import annotations

import hashlib
import io
import struct

from PIL import Image, UnidentifiedImageError

from app.problems import ServiceError
from app.schemas import ErrorCode, ImageInfo

Image.MAX_IMAGE_PIXELS = None  # our own limit is a setting, and checked on the header

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
}
"""The accepted formats by Pillow's names."""

# Formats that people try and that are refused by name: (offset, magic bytes, name).
_REFUSED_MAGIC = (
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypisom", "MP4"),
    (4, b"ftypmp42", "MP4"),
)
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height


def inspect(data: bytes, max_pixels: int) -> ImageInfo:
    """Identify an upload from its header.

    Args:
        data: the file as it came.
        max_pixels: largest width × height.

    Raises:
        ServiceError: `file_empty`, `not_an_image`, `format_unsupported`, `too_many_pixels`, or
            `image_truncated` / `image_undecodable` where the header itself is broken.
    """
    if not data:
        raise ServiceError(ErrorCode.FILE_EMPTY, "The file part holds no bytes.")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(MEDIA_TYPES)) as picture:
            width, height = picture.size
            _check_pixels(width, height, max_pixels)
            image_format = str(picture.format)
            if picture.getexif().get(_ORIENTATION_TAG) in _SIDEWAYS:
                width, height = height, width
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except EOFError:
        raise ServiceError(ErrorCode.IMAGE_TRUNCATED, "The file ends in its header.") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        struct.error,
        KeyError,
        TypeError,
        IndexError,
    ) as error:
        # What Pillow's readers raise on hostile headers.
        raise ServiceError(
            ErrorCode.IMAGE_UNDECODABLE, f"The header cannot be read ({error})."
        ) from None
    return ImageInfo(
        width=width,
        height=height,
        format=image_format,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ServiceError(
            ErrorCode.TOO_MANY_PIXELS,
            f"{width} × {height} = {width * height} pixels; the limit is {max_pixels}.",
        )


def _unidentified(data: bytes) -> ServiceError:
    accepted = ", ".join(MEDIA_TYPES)
    name = next(
        (name for at, magic, name in _REFUSED_MAGIC if data.startswith(magic, at)),
        "SVG" if b"<svg" in data[:4096].lower() else None,
    )
    if name is None:
        return ServiceError(ErrorCode.NOT_AN_IMAGE, f"The file is none of {accepted}.")
    return ServiceError(ErrorCode.FORMAT_UNSUPPORTED, f"{name} is not one of {accepted}.")
