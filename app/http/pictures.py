"""Inspection of uploaded pictures, and their refusal."""

from __future__ import annotations

import hashlib

from app.contract.schemas import ErrorCode, ImageInfo
from app.http.problems import ServiceError
from pictures.errors import PictureError
from pictures.frames import count_frames
from pictures.header import read_header


def inspect(data: bytes, max_pixels: int) -> ImageInfo:
    """Read the header of an upload, without decoding pixels.

    Args:
        data: uploaded file.
        max_pixels: maximum width × height.

    Raises:
        ServiceError: If the file is refused: `file_empty`, `not_an_image`, `format_unsupported`,
            `camera_raw`, `too_many_pixels`, `too_elongated`, or, for a broken header,
            `image_truncated` or `image_undecodable`.
    """
    if not data:
        raise ServiceError(ErrorCode.FILE_EMPTY)
    try:
        header = read_header(data, max_pixels=max_pixels)
    except PictureError as error:
        raise refusal(error) from None
    return ImageInfo(
        width=header.width,
        height=header.height,
        format=header.format,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        frames=count_frames(data, header.format),
    )


def refusal(error: PictureError) -> ServiceError:
    """Convert an error of a picture to a `ServiceError`."""
    return ServiceError(ErrorCode(error.code), error.detail)
