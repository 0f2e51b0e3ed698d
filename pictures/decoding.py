"""From the bytes of a picture file to pixels, and from nothing worse than `PictureError`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pi_heif import register_heif_opener
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from pictures import effort

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""Pillow's names of the formats that are read."""
MAX_ASPECT_RATIO = 50
"""Longer side over shorter side. Panoramas have up to 15, long screenshots up to 40."""

register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
Image.MAX_IMAGE_PIXELS = None  # the caller's limit holds, checked on the header

_SAME_FORMAT = {"MPO": "JPEG"}  # a JPEG with further pictures behind it, as some cameras write
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height
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
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
_EIGHT_BITS = ((np.arange(2**16, dtype=np.uint32) + 128) // 257).astype(np.uint8)
# What decoders say of a file that ends too early; Pillow has no error class of its own for it.
_ENDED_EARLY = ("truncated", "end of file", "eof", "incomplete", "failed to read next frame")
_BAND = 2**20  # pixels that are converted at once
_RIFF_HEADER = 8
_ISO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")


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


class TooElongatedError(PictureError):
    """The header announces a longer side of more than `MAX_ASPECT_RATIO` times the shorter one."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file says of itself before any pixel is decoded."""

    format: str
    """One of `ALLOWED_FORMATS`."""
    width: int
    """Pixels, upright; that is what `decode` will give."""
    height: int


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Read the header of a picture file; no pixel is decoded.

    Args:
        data: The whole file.
        max_pixels: Largest width times height.

    Returns:
        Format and size.

    Raises:
        PictureError: One of its subclasses; hostile bytes raise nothing else.
    """
    with _opened(data, max_pixels) as image:
        width, height = image.size
        if _orientation(image) in _SIDEWAYS:
            width, height = height, width
        return Header(_format(image), width, height)


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
    with _opened(data, max_pixels) as image:
        return _to_array(_load(image))


def upright(data: bytes, *, max_pixels: int, side: int | None = None) -> Image.Image:
    """Decode a picture file for the eye: what `decode` gives, as a picture, or smaller.

    Args:
        data: The whole file.
        max_pixels: As in `decode`.
        side: The picture is made to fit side x side pixels, never enlarged; None: as it is.

    Returns:
        An RGB picture.

    Raises:
        PictureError: As in `decode`.
    """
    with _opened(data, max_pixels) as image:
        if side is not None and _format(image) == "JPEG":
            image.draft(None, (side, side))  # its decoder shrinks for less than nothing
        loaded = _load(image)
        if loaded is image:  # which may load its file again, at its own size, when it is used
            loaded = loaded.copy()
        if side is not None:
            loaded.thumbnail((side, side))
        return loaded


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture within the limits; all that goes wrong with it inside is a `PictureError`."""
    try:
        if _is_iso_media(data):
            effort.check_heif_names(data)
        with Image.open(effort.Reader(data), formats=ALLOWED_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooManyPixelsError(
                    f"{width} × {height} = {width * height} pixels; the limit is {max_pixels}"
                )
            if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
                raise TooElongatedError(
                    f"{width} × {height}; one side may be at most {MAX_ASPECT_RATIO} times as long "
                    "as the other"
                )
            _check_effort(data, image, max_pixels)
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        if not _is_iso_media(data):
            raise UnsupportedFormatError(
                f"not a picture in one of the formats {', '.join(ALLOWED_FORMATS)}"
            ) from error
        # The decoders of AVIF and HEIF are asked before any header is read.
        if _ended_early(data, error):
            raise TruncatedPictureError("the file ends too early") from error
        raise UndecodablePictureError("the header cannot be read") from error
    except Exception as error:  # decoders fail on hostile bytes in more ways than they document
        reason = str(error).strip() or type(error).__name__
        if _ended_early(data, error):
            raise TruncatedPictureError(f"the file ends too early: {reason}") from error
        raise UndecodablePictureError(f"the picture cannot be decoded: {reason}") from error


def _format(image: Image.Image) -> str:
    name = str(image.format)
    return _SAME_FORMAT.get(name, name)


def _check_effort(data: bytes, image: Image.Image, max_pixels: int) -> None:
    """Refuse what takes far more time or memory to decode than its bytes and its pixels tell."""
    if _format(image) == "JPEG":
        effort.check_jpeg(data)
    elif isinstance(image, TiffImageFile):
        effort.check_tiff(image)
    elif image.format == "HEIF":
        effort.check_heif(data, max_pixels)


def _ended_early(data: bytes, error: Exception) -> bool:
    if data.startswith(b"RIFF"):  # WebP: its decoder does not say why, but its header how long
        announced = int.from_bytes(data[4:_RIFF_HEADER], "little") + _RIFF_HEADER
        return len(data) < announced
    if _is_iso_media(data):  # a row of boxes, each of which says how long it is
        return any(end > len(data) for _, _, end in effort.boxes(data))
    return isinstance(error, EOFError) or any(hint in str(error).lower() for hint in _ENDED_EARLY)


def _is_iso_media(data: bytes) -> bool:
    """Whether a file says that it is AVIF or HEIF."""
    brands = data[8 : int.from_bytes(data[:4], "big")]
    return data[4:8] == b"ftyp" and any(brand in brands for brand in _ISO_BRANDS)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is left to apply to an opened picture; broken EXIF says nothing."""
    if image.format == "TIFF":  # Pillow turns these by itself
        return 1
    try:
        # Not PNG's own method, which decodes the pixels to look for EXIF behind them.
        return int(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    except Exception:  # as many kinds of errors as there are ways to break a TIFF directory
        return 1


def _load(image: Image.Image) -> Image.Image:
    """Decode the pixels of an opened picture: upright, 8-bit sRGB, without transparency."""
    orientation, size = _orientation(image), image.size
    image.load()
    if image.size != size:
        raise UndecodablePictureError(f"the header says {size}, the picture {image.size}")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return _to_srgb(image)


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of an RGB picture, in bands: asked for all at once, Pillow copies twice."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for box in bands(image.size, _BAND):
        pixels[box[1] : box[3]] = np.asarray(image.crop(box))
    return pixels


def bands(size: tuple[int, int], pixels: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of a picture from top to bottom.

    Args:
        size: Width and height of the picture.
        pixels: Most pixels in a box, if one row has no more.
    """
    width, height = size
    rows = max(1, pixels // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit sRGB without transparency."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        return _over_white(_apply_profile(rgba, profile))
    if image.mode == "P":  # a profile speaks of the palette's colours, not of its indices
        image = image.convert("RGB")
    if image.mode == "LAB":
        return _converted(image, _LAB)
    image = _apply_profile(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _over_white(image: Image.Image) -> Image.Image:
    """Lay RGBA over white, in bands: a large picture is held as seldom as can be."""
    result = Image.new("RGB", image.size)
    for box in bands(image.size, _BAND):
        part = image.crop(box)
        white = Image.new("RGBA", part.size, "white")
        result.paste(Image.alpha_composite(white, part).convert("RGB"), box)
    return result


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey pictures of 16 bits, 32 bits or floating point to 8 bits."""
    if image.mode != "F":  # mode I carries 16-bit samples too
        samples = np.asarray(image)
        if samples.dtype != np.uint16:
            samples = samples.clip(0, 2**16 - 1)
        return Image.fromarray(_EIGHT_BITS[samples])
    values = np.nan_to_num(np.asarray(image))
    full_scale = 1.0 if values.max() <= 1 else 255.0
    return Image.fromarray(np.rint(np.clip(values / full_scale, 0, 1) * 255).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by an embedded ICC profile; one that is broken or does not fit is ignored."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        return _converted(image, source)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode=mode)
    assert converted is not None  # noqa: S101 - only in place is there nothing to return
    return converted
