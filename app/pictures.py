"""Uploaded pictures on the service's side: what their header says, and how they are shown."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

from app.problems import ServiceError
from app.schemas import ErrorCode, ImageInfo
from pictures import decoding

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
}
"""The accepted formats by Pillow's names."""

# Formats that people try and that are refused by name: (offset, magic bytes, name).
_REFUSED_MAGIC = (
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "EPS"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (4, b"ftypisom", "MP4"),
    (4, b"ftypmp42", "MP4"),
)
_DISPLAY_QUALITY = 92  # of JPEG: nothing is seen of it, at a third of the bytes of PNG


def inspect(data: bytes, max_pixels: int) -> ImageInfo:
    """Identify an upload from its header; no pixel is decoded.

    Args:
        data: the file as it came.
        max_pixels: largest width × height.

    Raises:
        ServiceError: `file_empty`, `not_an_image`, `format_unsupported`, `too_many_pixels`,
            `too_elongated`, or `image_truncated` / `image_undecodable` where the header itself is
            broken.
    """
    if not data:
        raise ServiceError(ErrorCode.FILE_EMPTY, "The file part holds no bytes.")
    try:
        header = decoding.read_header(data, max_pixels=max_pixels)
    except decoding.PictureError as error:
        raise _refusal(error, data) from None
    return ImageInfo(
        width=header.width,
        height=header.height,
        format=header.format,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def upright(data: bytes, max_pixels: int, side: int | None = None) -> Image.Image:
    """A stored picture as the model sees it: RGB, first frame, upright, in sRGB, over white.

    Args:
        data: the file as it came.
        max_pixels: largest width × height.
        side: the picture is made to fit side × side pixels, never enlarged; None: as it is.

    Raises:
        ServiceError: `image_truncated`, `image_undecodable`.
    """
    try:
        return decoding.upright(data, max_pixels=max_pixels, side=side)
    except decoding.PictureError as error:
        raise _refusal(error, data) from None


def display(data: bytes, max_pixels: int, side: int) -> bytes:
    """JPEG of a stored picture for the eye; the arguments are those of `upright`.

    Raises:
        ServiceError: as `upright` does.
    """
    encoded = io.BytesIO()
    shown = upright(data, max_pixels, side)
    shown.save(encoded, "JPEG", quality=_DISPLAY_QUALITY, subsampling="4:4:4")
    return encoded.getvalue()


def _refusal(error: Exception, data: bytes) -> ServiceError:
    detail = f"{str(error)[:1].upper()}{str(error)[1:]}."
    if isinstance(error, decoding.TooManyPixelsError):
        return ServiceError(ErrorCode.TOO_MANY_PIXELS, detail)
    if isinstance(error, decoding.TooElongatedError):
        return ServiceError(ErrorCode.TOO_ELONGATED, detail)
    if isinstance(error, decoding.TruncatedPictureError):
        return ServiceError(ErrorCode.IMAGE_TRUNCATED, detail)
    if isinstance(error, decoding.UndecodablePictureError):
        return ServiceError(ErrorCode.IMAGE_UNDECODABLE, detail)
    accepted = ", ".join(MEDIA_TYPES)
    name = next(
        (name for at, magic, name in _REFUSED_MAGIC if data.startswith(magic, at)),
        "SVG" if b"<svg" in data[:4096].lower() else None,
    )
    if name is None:
        return ServiceError(ErrorCode.NOT_AN_IMAGE, f"The file is none of {accepted}.")
    return ServiceError(ErrorCode.FORMAT_UNSUPPORTED, f"{name} is not one of {accepted}.")
