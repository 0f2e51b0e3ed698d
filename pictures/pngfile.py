"""Parser for PNG files: the picture that is shown, and its colour space.

Damaged, oversized and unused metadata chunks are skipped, so they never prevent decoding. As in
browsers, the first valid chunk of a type counts.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from pictures.colour import MAX_PROFILE
from pictures.colour_spaces import CodePoints, Colour, Gamma
from pictures.errors import TruncatedPictureError, UndecodablePictureError
from pictures.png import chunk
from pictures.pngchunks import SIGNATURE, Chunk, body, chunks, declared_frames
from pictures.source import Source

_FRAME = struct.Struct(">IIIIIHHBB")  # fcTL: sequence, width, height, left, top, delay, disposal
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types
_FRAMES = (b"fcTL", b"IDAT", b"fdAT")
_LENGTHS = {b"acTL": 8, b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"cLLI": 8, b"mDCV": 24}
_LAST_INTENT = 3  # largest rendering intent in sRGB
_LONGEST_NAME = 80  # bytes of a profile's name; PNG allows 79, browsers 80
_COLOURS = 256  # maximum in a palette


@dataclass(frozen=True, slots=True)
class Still:
    """The picture that is shown of a PNG, as a PNG file without metadata."""

    file: bytes
    canvas: tuple[int, int]
    """Width and height in pixels; larger than the picture in some animations."""
    left: int
    """Position of the picture on the canvas."""
    top: int
    grey: bool
    colour: Colour
    key: tuple[int, ...] | None
    """The transparent colour (tRNS): one or three samples in the bit depth of the file."""
    bits: int
    """Bits per sample."""


def still(data: bytes) -> Still:
    """Extract the picture that is shown first: the still picture or an animation's first frame.

    Raises:
        PictureError: If the file is truncated or a critical chunk is damaged.
    """
    source = Source(data, most=len(data))
    found, first = _metadata(source)
    header = found[b"IHDR"]
    width, height = struct.unpack(">II", header[:8])
    canvas = width, height
    left = top = 0
    pixels: bytes | memoryview
    if b"acTL" in found and b"fcTL" not in found:  # the default image is not a frame
        width, height, left, top, pixels = _first_frame(source, first, header)
        header = struct.pack(">II", width, height) + header[8:]
    else:
        pixels = _run(source, first)
    bits, kind = header[8], header[9]
    parts = [SIGNATURE, chunk(b"IHDR", header)]
    if kind == _PALETTE and b"PLTE" in found:
        parts += _palette(found)
    end = chunk(b"IEND", b"")
    return Still(
        file=b"".join((*parts, pixels, end)),
        canvas=canvas,
        left=left,
        top=top,
        grey=not kind & 2,
        colour=_colour(found),
        key=_key(found.get(b"tRNS", b""), bits, kind),
        bits=bits,
    )


def animation(data: bytes) -> bytes:
    """Reduce a file to the chunks of its frames, without metadata.

    Returns:
        A PNG file that declares no more frames than it has.

    Raises:
        PictureError: If the file is truncated or a critical chunk is damaged.
    """
    source = Source(data, most=len(data))
    found, _ = _metadata(source)
    frames, most = 0, declared_frames(found.get(b"acTL", b"")) or 1
    pixels = []
    for one in chunks(source):
        if one.kind == b"fcTL":
            if body(source, one) is None:
                continue
            frames += 1
        if one.kind == b"IEND" or frames > most:
            break
        if one.kind in _FRAMES:
            pixels.append(memoryview(data)[one.start : one.end])
    head = [chunk(kind, found[kind]) for kind in (b"IHDR", b"PLTE", b"tRNS") if kind in found]
    control = chunk(b"acTL", struct.pack(">II", max(1, min(frames, most)), 0))
    return b"".join((SIGNATURE, *head, control, *pixels, chunk(b"IEND", b"")))


def _metadata(source: Source) -> tuple[dict[bytes, bytes], Chunk]:
    """The chunks before the pixels that browsers use, and the first chunk of pixels.

    Raises:
        PictureError: If the file is truncated or a critical chunk is damaged.
    """
    found: dict[bytes, bytes] = {}
    for one in chunks(source):
        if one.kind == b"IDAT":
            return found, one
        if one.kind in _WANTED and one.kind not in found and not _out_of_place(one.kind, found):
            content = body(source, one)
            if content is not None and _valid(one.kind, content):
                found[one.kind] = content
            elif one.critical:
                raise UndecodablePictureError(f"the {one.kind.decode()} chunk is damaged")
    raise TruncatedPictureError("the file ends too early")


_WANTED = frozenset(
    (
        b"IHDR",
        b"PLTE",
        b"tRNS",
        b"acTL",
        b"fcTL",
        b"cICP",
        b"iCCP",
        b"sRGB",
        b"gAMA",
        b"cHRM",
        b"cLLI",
        b"mDCV",
    )
)


def low_bytes(file: bytes) -> Image.Image:
    """Return the low bytes of the samples of a 16-bit RGB PNG as an RGB image.

    Pillow has no mode for 3 × 16 bits, but can decode either half.
    """
    image = Image.open(BytesIO(file), formats=("PNG",))
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image


def _out_of_place(kind: bytes, found: Mapping[bytes, bytes]) -> bool:
    """Whether browsers ignore a chunk because of the chunks before it."""
    if kind == b"tRNS":
        return found[b"IHDR"][9] == _PALETTE and b"PLTE" not in found
    return kind == b"cICP" and b"PLTE" in found


def _valid(kind: bytes, content: bytes) -> bool:
    """Whether browsers accept the content of a chunk; otherwise the next of its type may count."""
    if len(content) != _LENGTHS.get(kind, len(content)):
        return False
    if kind == b"tRNS":
        return len(content) <= _COLOURS
    if kind == b"acTL":
        return declared_frames(content) > 0
    return kind != b"sRGB" or content[0] <= _LAST_INTENT


def _palette(found: Mapping[bytes, bytes]) -> list[bytes]:
    """Palette chunks, filled up with the last colour, as in browsers."""
    count = len(found[b"PLTE"]) // 3
    colours, opacities = found[b"PLTE"][: 3 * count], found.get(b"tRNS", b"")[:count]
    more = _COLOURS - count
    colours += colours[-3:] * more
    if not opacities:
        return [chunk(b"PLTE", colours)]
    opacities = opacities.ljust(count, b"\xff")
    return [chunk(b"PLTE", colours), chunk(b"tRNS", opacities + opacities[-1:] * more)]


def _run(source: Source, first: Chunk) -> memoryview:
    """The consecutive IDAT chunks from `first` on, unchanged."""
    end = first.start
    for one in chunks(source, first.start):
        if one.kind != b"IDAT":
            break
        end = one.end
    return memoryview(source.data)[first.start : end]


def _first_frame(source: Source, default: Chunk, header: bytes) -> tuple[int, int, int, int, bytes]:
    """Width, height, left, top and IDAT chunk of the first frame after the default image."""
    canvas = struct.unpack(">II", header[:8])
    frame, pixels = None, []
    for one in chunks(source, default.start):
        if one.kind == b"fcTL":
            if frame is not None:
                break
            content = body(source, one)
            if content is None or len(content) != _FRAME.size:
                raise UndecodablePictureError("the fcTL chunk is damaged")
            frame = _FRAME.unpack(content)
        elif one.kind == b"fdAT" and frame is not None:
            pixels.append(source.data[one.body + 4 : one.end - 4])
        elif one.kind == b"IEND":
            break
    if frame is None or not pixels:
        raise UndecodablePictureError("the animation has no frame")
    number, width, height, left, top = frame[:5]
    inside = left + width <= canvas[0] and top + height <= canvas[1]
    if number != 0 or not width or not height or not inside:
        raise UndecodablePictureError("the first frame of the animation is invalid")
    return width, height, left, top, chunk(b"IDAT", b"".join(pixels))


def _key(content: bytes, bits: int, kind: int) -> tuple[int, ...] | None:
    samples = {_GREY: 1, _RGB: 3}.get(kind)
    if samples is None or len(content) < 2 * samples:
        return None
    key = struct.unpack(f">{samples}H", content[: 2 * samples])
    return tuple(sample & ((1 << bits) - 1) for sample in key)


def _colour(found: Mapping[bytes, bytes]) -> Colour:
    """The first usable of cICP, iCCP, sRGB, and gAMA with cHRM."""
    code_points = found.get(b"cICP", b"")
    if len(code_points) == 4 and code_points[2:] == b"\0\1":  # RGB, full range
        known = CodePoints.known(code_points[0], code_points[1], _peak(found))
        if known is not None:
            return known
    profile = _profile(found.get(b"iCCP", b""))
    if profile is not None:
        return profile
    gamma = found.get(b"gAMA", b"")
    if b"sRGB" in found or len(gamma) != 4:
        return None
    points = found.get(b"cHRM", b"")
    chromaticities = struct.unpack(">8I", points) if len(points) == 32 else ()
    return Gamma.known(
        int.from_bytes(gamma, "big") / 100_000, tuple(point / 100_000 for point in chromaticities)
    )


def _peak(found: Mapping[bytes, bytes]) -> float:
    """Peak luminance of the picture or of its mastering display in cd/m²; 0 if unknown."""
    for kind, size, at in ((b"cLLI", 8, 0), (b"mDCV", 24, 16)):
        content = found.get(kind, b"")
        if len(content) == size and any(content[at : at + 4]):
            return int.from_bytes(content[at : at + 4], "big") / 10_000
    return 0


def _profile(content: bytes) -> bytes | None:
    name, _, compressed = content.partition(b"\0")
    if not 0 < len(name) <= _LONGEST_NAME or compressed[:1] != b"\0":  # 0: deflate, the only method
        return None
    try:
        decompressor = zlib.decompressobj()
        profile = decompressor.decompress(compressed[1:], MAX_PROFILE)
    except zlib.error:
        return None
    whole = decompressor.eof and len(profile) >= int.from_bytes(profile[:4], "big")
    return profile if whole else None
