"""From the bytes of a picture file to pixels, and from nothing worse than `PictureError`."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow's names of the formats that are read."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
# What decoders say of a file that ends too early; Pillow has no error class of its own for it.
_ENDED_EARLY = ("truncated", "end of file", "eof", "incomplete", "failed to read next frame")
_RIFF_HEADER = 8
_BOX_HEADER = 8


class PictureError(Exception):
    """A picture cannot be read; the message can be shown to whoever sent it."""


class UnsupportedFormatError(PictureError):
    """The bytes are not a picture of an allowed format."""


class TruncatedPictureError(PictureError):
    """The file ends before the picture does."""


class UndecodablePictureError(PictureError):
    """The file is of an allowed format, but what it holds cannot be decoded."""


class TooManyPixelsError(PictureError):
    """The header announces more pixels than are allowed."""


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode the first frame of a picture file.

    The EXIF orientation is applied, transparency is laid over white, and colours are converted
    to sRGB by the embedded profile, if it has a valid one. Grey samples of 16 bits, 32 bits or
    floating point are scaled to 8 bits.

    Args:
        data: The whole file.
        max_pixels: Largest width times height; checked on the header, before any pixel is read.

    Returns:
        Pixels (H, W, 3), sRGB, 0 to 255.

    Raises:
        PictureError: One of its subclasses; hostile bytes raise nothing else.
    """
    try:
        with Image.open(BytesIO(data), formats=ALLOWED_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooManyPixelsError(
                    f"{width} x {height} pixels are more than the allowed {max_pixels}"
                )
            image.load()
            return np.asarray(_to_srgb(_upright(image)))
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(str(error)) from error
    except UnidentifiedImageError as error:
        if _is_avif(data) and _ended_early(data, error):  # its decoder is asked before any header
            raise TruncatedPictureError("the file ends too early") from error
        raise UnsupportedFormatError(
            f"not a picture in one of the formats {', '.join(ALLOWED_FORMATS)}"
        ) from error
    except Exception as error:  # decoders fail on hostile bytes in more ways than they document
        reason = str(error) or type(error).__name__
        if _ended_early(data, error):
            raise TruncatedPictureError(f"the file ends too early: {reason}") from error
        raise UndecodablePictureError(f"the picture cannot be decoded: {reason}") from error


def _ended_early(data: bytes, error: Exception) -> bool:
    if data.startswith(b"RIFF"):  # WebP: its decoder does not say why, but its header how long
        announced = int.from_bytes(data[4:_RIFF_HEADER], "little") + _RIFF_HEADER
        return len(data) < announced
    if _is_avif(data):  # a row of boxes, each of which says how long it is
        return _last_box_end(data) > len(data)
    return isinstance(error, EOFError) or any(hint in str(error).lower() for hint in _ENDED_EARLY)


def _is_avif(data: bytes) -> bool:
    brands = data[: int.from_bytes(data[:4], "big")]
    return data[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands)


def _last_box_end(data: bytes) -> int:
    """Where the row of ISO media boxes in `data` says that it ends; 0 if it does not say."""
    end = 0
    while end + _BOX_HEADER <= len(data):
        length = int.from_bytes(data[end : end + 4], "big")
        if length == 1:  # the length follows in 64 bits
            length = int.from_bytes(data[end + _BOX_HEADER : end + 2 * _BOX_HEADER], "big")
        if length < _BOX_HEADER:  # 0: to the end of the file, however long; 2 to 7: nonsense
            return 0
        end += length
    return end


def _upright(image: Image.Image) -> Image.Image:
    """Turn a loaded picture as its EXIF orientation says; broken EXIF says nothing."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # as many kinds of errors as there are ways to break a TIFF directory
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit sRGB without transparency."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        image = _apply_profile(image.convert("RGBA"), profile)
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "P":  # a profile speaks of the palette's colours, not of its indices
        image = image.convert("RGB")
    return _apply_profile(image, profile).convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey pictures of 16 bits, 32 bits or floating point to 8 bits."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    full_scale = 65535.0  # mode I carries 16-bit samples too
    if image.mode == "F":
        full_scale = 1.0 if values.max() <= 1 else 255.0
    return Image.fromarray(np.rint(np.clip(values / full_scale, 0, 1) * 255).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by an embedded ICC profile; one that is broken or does not fit is ignored."""
    if not profile:
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return converted if converted is not None else image
