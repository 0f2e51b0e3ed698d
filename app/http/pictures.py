"""Uploaded pictures on the service's side: what their header says, and how they are refused."""

from __future__ import annotations

import hashlib

from app.contract.schemas import ErrorCode, ImageInfo
from app.http.problems import ServiceError
from pictures.errors import (
    CameraRawError,
    DecodingAbortedError,
    PictureError,
    TooElongatedError,
    TooManyPixelsError,
    TruncatedPictureError,
    UndecodablePictureError,
)
from pictures.frames import count_frames
from pictures.header import read_header

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


def inspect(data: bytes, max_pixels: int) -> ImageInfo:
    """Identify an upload from its header; no pixel is decoded.

    Args:
        data: the file as it came.
        max_pixels: largest width × height.

    Raises:
        ServiceError: `file_empty`, `not_an_image`, `format_unsupported`, `camera_raw`,
            `too_many_pixels`, `too_elongated`, or `image_truncated` / `image_undecodable` where
            the header itself is broken.
    """
    if not data:
        raise ServiceError(ErrorCode.FILE_EMPTY, "The file part is empty.")
    try:
        header = read_header(data, max_pixels=max_pixels)
    except PictureError as error:
        raise refusal(error, data) from None
    return ImageInfo(
        width=header.width,
        height=header.height,
        format=header.format,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        frames=count_frames(data, header.format),
    )


def refusal(error: PictureError, data: bytes) -> ServiceError:
    """Why a picture is not accepted, or not shown.

    Args:
        error: what its reader says.
        data: the file as it came.
    """
    detail = f"{str(error)[:1].upper()}{str(error)[1:]}."
    if isinstance(error, CameraRawError):
        return ServiceError(ErrorCode.CAMERA_RAW, detail)
    if isinstance(error, TooManyPixelsError):
        return ServiceError(ErrorCode.TOO_MANY_PIXELS, detail)
    if isinstance(error, TooElongatedError):
        return ServiceError(ErrorCode.TOO_ELONGATED, detail)
    if isinstance(error, TruncatedPictureError):
        return ServiceError(ErrorCode.IMAGE_TRUNCATED, detail)
    if isinstance(error, DecodingAbortedError):
        return ServiceError(ErrorCode.DECODING_ABORTED, detail)
    if isinstance(error, UndecodablePictureError):
        return ServiceError(ErrorCode.IMAGE_UNDECODABLE, detail)
    accepted = ", ".join(MEDIA_TYPES)
    name = next(
        (name for at, magic, name in _REFUSED_MAGIC if data.startswith(magic, at)),
        "SVG" if b"<svg" in data[:4096].lower() else None,
    )
    if name is None:
        return ServiceError(ErrorCode.NOT_AN_IMAGE, f"The file is not one of {accepted}.")
    return ServiceError(ErrorCode.FORMAT_UNSUPPORTED, f"{name} is not one of {accepted}.")
