"""What can be wrong with a picture file."""


class PictureError(Exception):
    """A picture cannot be read; the message can be shown to whoever sent it."""


class UnsupportedFormatError(PictureError):
    """The bytes are not a picture of an allowed format."""


class CameraRawError(UnsupportedFormatError):
    """The file holds what a camera's sensor saw, which is no picture yet."""


class TruncatedPictureError(PictureError):
    """The file ends before the picture does."""


class UndecodablePictureError(PictureError):
    """The file is of an allowed format, but what it holds cannot be decoded."""


class TooManyPixelsError(PictureError):
    """The header announces more pixels than are allowed."""


class TooElongatedError(PictureError):
    """The header announces a side of more than `header.MAX_ASPECT_RATIO` times the other one."""


class DecodingAbortedError(PictureError):
    """Decoding took far more memory or time than it may, or ended the decoder."""
