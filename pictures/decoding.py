"""Decoding of picture files to pixels; the policy is in docs/decoding.md."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pi_heif import register_heif_opener
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from pictures import colour, colour_spaces, giffile, isomedia, jpegfile, pngfile, tiff
from pictures.errors import (
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UndecodablePictureError,
)
from pictures.header import Header, read_header

register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked on the header instead

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EIGHT_BITS = ((np.arange(2**16, dtype=np.uint32) + 128) // 257).astype(np.uint8)
# Parts of decoders' messages about truncated files; Pillow has no error class for them.
_ENDED_EARLY = ("truncated", "end of file", "eof", "incomplete", "failed to read next frame")
_BAND = 2**20  # pixels converted at once
_RIFF_HEADER = 8
_WEBP_ANIMATED, _WEBP_OPACITY = 2, 16  # bits of the 21st byte
# Chromium treats the alpha channel of still AVIF as narrow range, 16 to 235.
_AVIF_OPACITY = [
    *(list(range(256)) * 3),
    *(min(max(round((value - 16) * 255 / 219), 0), 255) for value in range(256)),
]
_SIXTEEN = 16  # bits per sample
# Offsets in a BMP: size of the DIB header, bits per pixel and compression, channel masks.
_BMP_SIZE_AT, _BMP_BITS_AT, _BMP_MASKS_AT = 14, 28, 54
_BMP_WITH_MASKS = (108, 124)  # sizes of DIB headers with masks
_BMP_MASKS = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode the picture that a browser shows of a file.

    Applies the orientation, composites transparency onto white and converts to sRGB. Grey samples
    of 16 bits, 32 bits or floating point are scaled to 8 bits.

    Args:
        data: The whole file.
        max_pixels: Maximum width times height; checked on the header, before any pixel is read.

    Returns:
        Pixels (H, W, 3), sRGB, 0 to 255.

    Raises:
        PictureError: If the file cannot be decoded. Hostile files raise nothing else.
    """
    with upright(data, max_pixels=max_pixels) as image:
        return _to_array(image)


@contextmanager
def upright(
    data: bytes, *, max_pixels: int, side: int | None = None, directory: int | None = None
) -> Iterator[Image.Image]:
    """Decode a picture file like `decode`, to a Pillow image.

    Args:
        data: The whole file.
        max_pixels: Maximum width times height.
        side: Shrink the picture to fit into side x side pixels; None keeps its size.
        directory: Offset of the directory of a page of a TIFF, of the size of the first; None: the
            page that is shown.

    Yields:
        An RGB image, valid within the context.

    Raises:
        PictureError: If the file cannot be decoded.
    """
    with _opened(data, max_pixels, directory) as (image, header, still):
        if side is not None and header.format == "JPEG":
            image.draft(None, (side, side))  # shrinks while decoding, which saves time
        loaded = _load(image, header, still)
        if loaded is image and header.format == "HEIF":
            loaded = image.copy()  # otherwise each access would decode it again
        if side is not None:
            loaded.thumbnail((side, side))
        yield loaded


@contextmanager
def _opened(
    data: bytes, max_pixels: int, directory: int | None
) -> Iterator[tuple[ImageFile.ImageFile, Header, pngfile.Still | None]]:
    """Open a picture file without its metadata, and compare its size with the header.

    Any exception within the context becomes a `PictureError`, except `MemoryError`.
    """
    header = read_header(data, max_pixels=max_pixels)
    try:
        still = pngfile.still(data) if header.format == "PNG" else None
        file, profile = (still.file, None) if still else pixels_only(data, header, directory)
        with Image.open(BytesIO(file), formats=(header.format,)) as image:
            if profile is not None:
                image.info["icc_profile"] = profile
            if file is not data and header.format == "WEBP":  # animated
                image.info.pop("icc_profile", None)
            if image.width * image.height > max_pixels:  # `header` has the cropped size
                raise TooManyPixelsError(f"{image.width} × {image.height} pixels before a crop")
            size = header.crop or (image.size if still is None else still.canvas)
            size = size[::-1] if header.orientation in tiff.SIDEWAYS else size
            if size != (header.width, header.height):
                raise UndecodablePictureError(
                    f"the header says {header.width} × {header.height}, the picture "
                    f"{size[0]} × {size[1]}"
                )
            yield image, header, still
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # decoders raise undocumented errors on hostile files
        reason = f": {error}" if _says_why(error) else ""
        if _ended_early(data, header, error):
            raise TruncatedPictureError(f"the file ends too early{reason}") from error
        raise UndecodablePictureError(f"the picture cannot be decoded{reason}") from error


def _says_why(error: Exception) -> bool:
    """Whether the text is about the file; others name objects and calls of the decoder."""
    return isinstance(error, OSError) and not isinstance(error, UnidentifiedImageError)


def pixels_only(
    data: bytes, header: Header, directory: int | None = None
) -> tuple[bytes, bytes | None]:
    """Remove metadata that Pillow would parse, since errors in it must not prevent decoding.

    Not for PNG. Returns the file for Pillow and the ICC profile that was removed from it.

    Raises:
        PictureError: If the file cannot be parsed.
    """
    if header.format == "JPEG":
        return jpegfile.pixels_only(data)
    if header.format == "GIF":
        return giffile.pixels_only(data), None
    if header.format == "TIFF":
        return tiff.pixels_only(data, directory), None
    if header.format == "WEBP" and data[12:16] == b"VP8X" and data[20] & _WEBP_ANIMATED:
        # Browsers ignore its profile and leave transparent what its first frame does not cover.
        return b"".join((data[:20], bytes([data[20] | _WEBP_OPACITY]), memoryview(data)[21:])), None
    return (_with_opacity(data), _bmp_profile(data)) if header.format == "BMP" else (data, None)


def _bmp_profile(bmp: bytes) -> bytes | None:
    if bmp[_BMP_SIZE_AT] != _BMP_WITH_MASKS[-1] or bmp[70:74] != b"DEBM":  # LE: embedded
        return None
    at, size = struct.unpack("<II", bmp[126:134])
    return bmp[_BMP_SIZE_AT + at :][:size]


def _with_opacity(bmp: bytes) -> bytes:
    """Set the compression field of a BMP with the usual masks, so that Pillow reads its alpha.

    Browsers read it either way; Pillow ignores the masks unless that field is BI_BITFIELDS.
    """
    head = len(_BMP_MASKS) + _BMP_MASKS_AT <= len(bmp) and bmp[_BMP_SIZE_AT]
    plain = bmp[_BMP_BITS_AT : _BMP_BITS_AT + 6] == b"\x20\0" + bytes(4)
    if head in _BMP_WITH_MASKS and plain and bmp.startswith(_BMP_MASKS, _BMP_MASKS_AT):
        at = _BMP_BITS_AT + 2
        return bmp[:at] + b"\3" + bmp[at + 1 :]
    return bmp


def _ended_early(data: bytes, header: Header, error: Exception) -> bool:
    if header.format == "WEBP":  # its decoder gives no reason, but the header has the length
        expected = int.from_bytes(data[4:_RIFF_HEADER], "little") + _RIFF_HEADER
        return len(data) < expected
    if header.format in ("AVIF", "HEIF"):
        return isomedia.ends_early(data)
    return isinstance(error, EOFError) or any(hint in str(error).lower() for hint in _ENDED_EARLY)


def _load(image: ImageFile.ImageFile, header: Header, still: pngfile.Still | None) -> Image.Image:
    """Decode an opened picture to upright 8-bit sRGB without transparency."""
    size, frame = image.size, None
    if header.format == "GIF":  # the first frame may not cover the whole canvas
        frame = image.tile[0][1]
    image.load()
    if image.size != size:
        raise UndecodablePictureError(f"the header says {size}, the picture {image.size}")
    clear = None if still is None else _clear(image, still)
    loaded = to_srgb(image, image.info.get("icc_profile") or header.colour, still)
    if clear is not None:
        loaded.paste("white", mask=clear)
    if frame not in (None, (0, 0, *size)):
        loaded = _on_white(loaded.crop(frame), size, frame[:2])
    elif still is not None and loaded.size != still.canvas:
        loaded = _on_white(loaded, still.canvas, (still.left, still.top))
    return turned(loaded, header)


def turned(picture: Image.Image, header: Header) -> Image.Image:
    """Apply crop and orientation."""
    if header.crop is not None:
        picture = picture.crop((0, 0, *header.crop))
    turn = _UPRIGHT.get(header.orientation)
    return picture if turn is None else picture.transpose(turn)


def _on_white(picture: Image.Image, size: tuple[int, int], at: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", size, "white")
    canvas.paste(picture, at)
    return canvas


def _clear(image: Image.Image, still: pngfile.Still) -> Image.Image | None:
    """Find the pixels of the transparent colour (tRNS), comparing samples in full depth.

    Returns:
        A mask (mode L) of 0 and 255; None if the PNG has no transparent colour.
    """
    if still.key is None:
        return None
    if image.mode == "RGB" and still.bits == _SIXTEEN:
        high = _equal(image, tuple(sample >> 8 for sample in still.key))
        low = _equal(pngfile.low_bytes(still.file), tuple(sample & 255 for sample in still.key))
        return ImageChops.multiply(high, low)
    steps = 255 // (2**still.bits - 1) if still.bits < 8 else 1  # Pillow scales them to 0 to 255
    return _equal(image, tuple(sample * steps for sample in still.key))


def _equal(image: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """Return a mask of 0 and 255 of the pixels whose samples equal `key`."""
    mask = Image.new("L", image.size)
    for box in bands(image.size, _BAND):
        samples = np.asarray(image.crop(box))
        equal = samples == key if samples.ndim == 2 else (samples == key).all(-1)
        mask.paste(Image.fromarray(equal.astype(np.uint8) * 255), box)
    return mask


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of an RGB image, copied in bands: as a whole, Pillow copies it twice."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for box in bands(image.size, _BAND):
        pixels[box[1] : box[3]] = np.asarray(image.crop(box))
    return pixels


def bands(size: tuple[int, int], pixels: int) -> Iterator[tuple[int, int, int, int]]:
    """Split a picture into full-width boxes (left, top, right, bottom), from top to bottom.

    Args:
        size: Width and height of the picture.
        pixels: Maximum number of pixels in a box; a box has at least one row.
    """
    width, height = size
    rows = max(1, pixels // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def to_srgb(
    image: Image.Image, declared: colour_spaces.Colour, still: pngfile.Still | None
) -> Image.Image:
    """Convert any mode to 8-bit sRGB without transparency."""
    if image.mode.startswith(("I", "F")):
        inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0  # 0 is white
        image = _to_eight_bits(image)
        image = ImageChops.invert(image) if inverted else image  # Pillow does it for 8 bits only
    if still is not None:
        declared = still.colour
        if still.grey and image.mode == "RGBA":  # Pillow's mode for 16-bit grey with alpha
            image = image.convert("LA")
    converted = colour.to_srgb(image, declared)
    still_avif = image.format == "AVIF" and not getattr(image, "is_animated", False)
    if converted.mode == "RGBA" and still_avif:
        converted = converted.point(_AVIF_OPACITY)
    return _over_white(converted) if converted.mode == "RGBA" else converted


def _over_white(image: Image.Image) -> Image.Image:
    """Composite RGBA onto white, in bands to save memory."""
    result = Image.new("RGB", image.size)
    for box in bands(image.size, _BAND):
        part = image.crop(box)
        white = Image.new("RGBA", part.size, "white")
        result.paste(Image.alpha_composite(white, part).convert("RGB"), box)
    return result


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey pictures of 16 bits, 32 bits or floating point to 8 bits."""
    if image.mode != "F":  # mode I has 16-bit samples too
        samples = np.asarray(image)
        if samples.dtype != np.uint16:
            samples = samples.clip(0, 2**16 - 1)
        return Image.fromarray(_EIGHT_BITS[samples])
    values = np.nan_to_num(np.asarray(image))
    full_scale = 1.0 if values.max() <= 1 else 255.0
    return Image.fromarray(np.rint(np.clip(values / full_scale, 0, 1) * 255).astype(np.uint8))
