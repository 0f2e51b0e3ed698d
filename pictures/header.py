"""Bounded parser for the headers of picture files.

It is safe to run outside the sandbox: it reads a limited number of small parts of a file, so no
file can make it use much time or memory.
"""

from dataclasses import dataclass

from pictures import giffile, isomedia, jpegfile, pngchunks, tiff
from pictures.colour_spaces import CodePoints
from pictures.errors import (
    CameraRawError,
    NotAPictureError,
    TooElongatedError,
    TooManyPixelsError,
    TruncatedPictureError,
    UndecodablePictureError,
    UnsupportedFormatError,
)
from pictures.source import Source

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
"""Media types of the supported formats, by Pillow's names."""
ALLOWED_FORMATS = tuple(MEDIA_TYPES)
MAX_ASPECT_RATIO = 50
"""Longer side divided by shorter side. Panoramas have up to 15, long screenshots up to 40."""

_PNG_MAGIC = b"\x89PNG"
# Camera raw formats that are not standard TIFF: (offset, magic bytes).
_RAW_MAGIC = (
    (0, b"IIRO"),  # Olympus
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),  # Panasonic, Leica
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"FOVb"),  # Sigma
    (0, b"\0MRM"),  # Minolta
    (6, b"HEAPCCDR"),  # Canon
    (4, b"ftypcrx "),
)
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
_EXIF_PREFIX, _EXIF_PREFIX_SIZE = b"Exif\0", 6  # browsers accept any sixth byte
_GIF_MAGIC = (b"GIF87a", b"GIF89a")
_BMP_CORE_HEADER, _BMP_HEADERS = 12, (40, 52, 56, 64, 108, 124)  # bytes
_WEBP_KINDS = (b"VP8 ", b"VP8L", b"VP8X")


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a picture file."""

    format: str
    """One of `ALLOWED_FORMATS`."""
    width: int
    """Pixels, after orientation and crop, as `decoding.decode` returns them."""
    height: int
    orientation: int = tiff.UPRIGHT
    """EXIF orientation, 1 to 8, to apply to Pillow's output; 1 for TIFF and HEIF, where Pillow
    applies it."""
    crop: tuple[int, int] | None = None
    """Width and height of the visible part of AVIF before orientation; None if all is visible."""
    colour: CodePoints | None = None
    """Colour space declared by an AVIF or HEIF container."""


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Read the header of a picture file without decoding pixels.

    Args:
        data: The whole file.
        max_pixels: Maximum width times height.

    Raises:
        PictureError: If the format is unsupported, the header is invalid, or the size exceeds the
            limits. Hostile files raise nothing else.
    """
    header = _read(Source(data))
    width, height = header.width, header.height
    if not width or not height:
        raise UndecodablePictureError("the picture has no pixels")
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{width} × {height} = {width * height} pixels; the limit is {max_pixels}"
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise TooElongatedError(
            f"{width} × {height}; one side may be at most {MAX_ASPECT_RATIO} times as long "
            "as the other"
        )
    return header


def _read(source: Source) -> Header:
    data = source.data
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(source)
    if data.startswith(_PNG_MAGIC):
        return _png(source)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and data[12:16] in _WEBP_KINDS:
        return _webp(source)
    if data.startswith(_GIF_MAGIC):
        frame = giffile.first_frame(source)
        return Header("GIF", frame.width, frame.height)
    if data.startswith(b"BM"):
        return Header("BMP", *_bmp_size(source))
    if data.startswith(tiff.MAGIC):
        return Header("TIFF", *tiff.size(source))
    if isomedia.is_isomedia(source):
        shown = isomedia.read(source)
        orientation = shown.orientation if shown.format == "AVIF" else tiff.UPRIGHT
        return Header(
            shown.format,
            shown.width,
            shown.height,
            orientation,
            crop=shown.crop,
            colour=shown.colour,
        )
    if any(data.startswith(magic, at) for at, magic in _RAW_MAGIC):
        raise CameraRawError(tiff.RAW)
    raise _refused(data)


def _refused(data: bytes) -> UnsupportedFormatError:
    """Why a file of another format is not read."""
    accepted = ", ".join(ALLOWED_FORMATS)
    name = next(
        (name for at, magic, name in _REFUSED_MAGIC if data.startswith(magic, at)),
        "SVG" if b"<svg" in data[:4096].lower() else None,
    )
    if name is None:
        return NotAPictureError(f"the file is not one of {accepted}")
    return UnsupportedFormatError(f"{name} is not one of {accepted}")


def _turned(name: str, width: int, height: int, orientation: int) -> Header:
    if orientation in tiff.SIDEWAYS:
        width, height = height, width
    return Header(name, width, height, orientation)


def _jpeg(source: Source) -> Header:
    size = orientation = None
    for segment in jpegfile.segments(source):
        if segment.marker in jpegfile.FRAMES:
            if size is not None:
                raise UndecodablePictureError("the JPEG has two frames")
            size = source.number(segment.body + 3, 2), source.number(segment.body + 1, 2)
        exif = segment.body + _EXIF_PREFIX_SIZE
        if segment.marker != jpegfile.APP1 or exif >= segment.end or orientation is not None:
            continue
        if source.data.startswith(_EXIF_PREFIX, segment.body):
            orientation = tiff.orientation(source, exif, segment.end)
    if size is None:
        raise UndecodablePictureError("the JPEG has no frame")
    return _turned("JPEG", *size, orientation or tiff.UPRIGHT)


def _png(source: Source) -> Header:
    if not source.data.startswith(pngchunks.SIGNATURE[: len(source)]):
        raise UndecodablePictureError("the PNG signature is damaged")
    if source.read(12, 4) != b"IHDR":
        raise UndecodablePictureError("the PNG does not start with an IHDR chunk")
    width, height = source.number(16, 4), source.number(20, 4)
    orientation = None
    for chunk in pngchunks.chunks(source):
        if chunk.kind == b"IDAT":  # browsers ignore metadata after the pixels
            return _turned("PNG", width, height, orientation or tiff.UPRIGHT)
        if chunk.kind == b"eXIf" and orientation is None:
            exif = pngchunks.body(source, chunk)
            if exif is not None:
                orientation = tiff.orientation(source, chunk.body, chunk.body + len(exif))
    raise TruncatedPictureError("the file ends too early")


def _webp(source: Source) -> Header:
    kind = source.read(12, 4)
    if kind == b"VP8 ":
        width, height = (source.number(at, 2, "little") & 0x3FFF for at in (26, 28))
        return Header("WEBP", width, height)
    if kind == b"VP8L":
        bits = source.number(21, 4, "little")
        return Header("WEBP", (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1)
    width, height = (source.number(at, 3, "little") + 1 for at in (24, 27))
    return Header("WEBP", width, height)


def _bmp_size(source: Source) -> tuple[int, int]:
    kind = source.number(14, 4, "little")
    if kind == _BMP_CORE_HEADER:
        return source.number(18, 2, "little"), source.number(20, 2, "little")
    if kind not in _BMP_HEADERS:
        raise UnsupportedFormatError("the BMP header has an unknown size")
    width, height = source.number(18, 4, "little"), source.number(22, 4, "little")
    return width, min(height, 2**32 - height)  # negative: rows run from top to bottom
