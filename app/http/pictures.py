"""Uploaded pictures on the service's side: what their header says, and how they are refused."""

from __future__ import annotations

import hashlib

from app.contract.schemas import ErrorCode, ImageInfo
from app.http.problems import ServiceError
from pictures.errors import PictureError
from pictures.frames import count_frames
from pictures.header import read_header


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
    """Why a picture is not accepted, or not shown."""
    return ServiceError(ErrorCode(error.code), error.detail)
