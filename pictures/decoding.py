"""From the bytes of a picture file to pixels, and from nothing worse than `PictureError`."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pi_heif import register_heif_opener
from PIL import Image, ImageCms

from pictures import isomedia, tiff
from pictures.errors import PictureError, TruncatedPictureError, UndecodablePictureError
from pictures.header import Header, read_header

register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
Image.MAX_IMAGE_PIXELS = None  # the caller's limit holds, checked on the header

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
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
_EIGHT_BITS = ((np.arange(2**16, dtype=np.uint32) + 128) // 257).astype(np.uint8)
# What decoders say of a file that ends too early; Pillow has no error class of its own for it.
_ENDED_EARLY = ("truncated", "end of file", "eof", "incomplete", "failed to read next frame")
_BAND = 2**20  # pixels that are converted at once
_RIFF_HEADER = 8


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
    with upright(data, max_pixels=max_pixels) as image:
        return _to_array(image)


@contextmanager
def upright(data: bytes, *, max_pixels: int, side: int | None = None) -> Iterator[Image.Image]:
    """Decode a picture file to what `decode` gives, as a picture, or smaller.

    Args:
        data: The whole file.
        max_pixels: As in `decode`.
        side: The picture is made to fit side x side pixels, never enlarged; None: as it is.

    Yields:
        An RGB picture, as long as the context lasts.

    Raises:
        PictureError: As in `decode`.
    """
    with _opened(data, max_pixels) as (image, header, orientation):
        if side is not None and header.format == "JPEG":
            image.draft(None, (side, side))  # its decoder shrinks for less than nothing
        loaded = _load(image, orientation)
        if loaded is image and header.format == "HEIF":
            loaded = image.copy()  # of a file with several, each use would load it again
        if side is not None:
            loaded.thumbnail((side, side))
        yield loaded


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[tuple[Image.Image, Header, int]]:
    """Open a picture that is what its header says; with how it has to be turned, by EXIF.

    All that goes wrong with it inside is a `PictureError`, but that there is no memory left.
    """
    header = read_header(data, max_pixels=max_pixels)
    try:
        with Image.open(BytesIO(data), formats=(header.format,)) as image:
            orientation = header.orientation
            if header.format == "AVIF":  # by its container, which Pillow translates
                orientation = image.getexif().get(_ORIENTATION_TAG, tiff.UPRIGHT)
            size = image.size[::-1] if orientation in tiff.SIDEWAYS else image.size
            if size != (header.width, header.height):
                raise UndecodablePictureError(
                    f"the header says {header.width} × {header.height}, the picture "
                    f"{size[0]} × {size[1]}"
                )
            yield image, header, orientation
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # decoders fail on hostile bytes in more ways than they document
        reason = str(error).strip() or type(error).__name__
        if _ended_early(data, header, error):
            raise TruncatedPictureError(f"the file ends too early: {reason}") from error
        raise UndecodablePictureError(f"the picture cannot be decoded: {reason}") from error


def _ended_early(data: bytes, header: Header, error: Exception) -> bool:
    if header.format == "WEBP":  # its decoder does not say why, but its header how long
        announced = int.from_bytes(data[4:_RIFF_HEADER], "little") + _RIFF_HEADER
        return len(data) < announced
    if header.format in ("AVIF", "HEIF"):
        return isomedia.ends_early(data)
    return isinstance(error, EOFError) or any(hint in str(error).lower() for hint in _ENDED_EARLY)


def _load(image: Image.Image, orientation: int) -> Image.Image:
    """Decode the pixels of an opened picture: upright, 8-bit sRGB, without transparency."""
    size = image.size
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
