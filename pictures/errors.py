"""Errors of picture files."""

from __future__ import annotations

from typing import ClassVar


class PictureError(Exception):
    """A picture cannot be read; the message may be shown to the client.

    Attributes:
        code: stable error code in records and API responses.
        title: short description.
        status: HTTP status of a refused upload.
    """

    code: ClassVar[str] = "image_undecodable"
    title: ClassVar[str] = "The image cannot be decoded"
    status: ClassVar[int] = 422

    @property
    def detail(self) -> str:
        """The message as a sentence."""
        text = str(self)
        return f"{text[:1].upper()}{text[1:]}."


class UndecodablePictureError(PictureError):
    """The file is in a supported format but cannot be decoded."""


class UnsupportedFormatError(PictureError):
    """The file is not in a supported format."""

    code = "format_unsupported"
    title = "The image format is not supported"
    status = 415


class NotAPictureError(UnsupportedFormatError):
    """The file is not in a known image format."""

    code = "not_an_image"
    title = "The file is not an image"


class CameraRawError(UnsupportedFormatError):
    """The file is camera raw: sensor data that has not been developed to a picture."""

    code = "camera_raw"
    title = "Camera raw is not supported"


class TruncatedPictureError(PictureError):
    """The file is truncated."""

    code = "image_truncated"
    title = "The image file is truncated"


class TooManyPixelsError(PictureError):
    """The header declares more pixels than allowed."""

    code = "too_many_pixels"
    title = "The picture has too many pixels"
    status = 413


class TooElongatedError(PictureError):
    """The aspect ratio in the header exceeds `header.MAX_ASPECT_RATIO`."""

    code = "too_elongated"
    title = "The picture is too elongated"


class DecodingAbortedError(PictureError):
    """Decoding exceeded its limits of memory or time, or crashed the decoder."""

    code = "decoding_aborted"
    title = "Decoding the image takes too many resources"


PICTURE_ERRORS: tuple[type[PictureError], ...] = (
    UndecodablePictureError,
    UnsupportedFormatError,
    NotAPictureError,
    CameraRawError,
    TruncatedPictureError,
    TooManyPixelsError,
    TooElongatedError,
    DecodingAbortedError,
)
"""One class for each code."""
