"""Parts and writers of small picture files in every format that browsers show."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.conftest import photo
from tests.samples import box, encoded, png, srgb_profile

SIZE = WIDTH, HEIGHT = 64, 48
ZEROS = zlib.compress(bytes(9 * 2**20), 9)

Make = Callable[[], bytes]
Chunk = tuple[bytes, bytes]


def scene() -> Image.Image:
    """A photo with its own colours in each corner."""
    return photo(WIDTH, HEIGHT, 4)


def other() -> Image.Image:
    return photo(WIDTH, HEIGHT, 5)


def clear() -> Image.Image:
    picture = scene().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    return picture


# -- profiles -------------------------------------------------------------------------------------


def linear_profile() -> bytes:
    """Linear light with the primaries of sRGB, described as "sRGB built-in"."""
    profile = bytearray(srgb_profile())
    at = profile.index(b"para")
    profile[at + 8 : at + 16] = struct.pack(">HHi", 0, 0, 1 << 16)
    return bytes(profile)


def swapped_profile() -> bytes:
    """Red and green change places; described as "sRGB built-in"."""
    profile = bytearray(srgb_profile())
    at = {name: profile.index(name, 128) + 4 for name in (b"rXYZ", b"gXYZ")}
    places = {name: bytes(profile[i : i + 4]) for name, i in at.items()}
    profile[at[b"rXYZ"] : at[b"rXYZ"] + 4] = places[b"gXYZ"]
    profile[at[b"gXYZ"] : at[b"gXYZ"] + 4] = places[b"rXYZ"]
    return bytes(profile)


def grey_profile() -> bytes:
    """Grey in linear light."""
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    at = 128 + 4 + 2 * 12
    tags = struct.pack(">I", 2)
    tags += b"wtpt" + struct.pack(">II", at, len(white))
    tags += b"kTRC" + struct.pack(">II", at + len(white), len(curve))
    body = tags + white + curve
    head = struct.pack(">I4xI", 128 + len(body), 2 << 24) + b"mntrGRAYXYZ "
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


def table_profile() -> bytes:
    """A table of colours that inverts them, as an ICC profile of version 2 with an A2B0."""
    lab = ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    side = 9
    steps = np.linspace(255, 0, side).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)
    points = np.array(ImageCms.applyTransform(Image.fromarray(grid), to_lab))[0].astype(int)
    points[:, 1:] = (points[:, 1:] + 128) % 256  # Pillow has a and b signed
    ramp = struct.pack(">2H", 0, 65535)
    lut = b"mft2" + bytes(4) + bytes([3, 3, side, 0])
    lut += struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    lut += struct.pack(">2H", 2, 2) + ramp * 3
    lut += np.minimum(points * 256, 65280).astype(">u2").tobytes() + ramp * 3
    at = 128 + 4 + 12
    head = struct.pack(">I4xI", at + len(lut), 2 << 24) + b"mntrRGB Lab "
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", at, len(lut)) + lut


def iccp(profile: bytes) -> Chunk:
    return b"iCCP", b"a\0\0" + zlib.compress(profile)


# -- PNG ------------------------------------------------------------------------------------------


def rows(pixels: NDArray[np.generic]) -> bytes:
    """Compressed pixels of a PNG; integers of more than a byte are turned to its byte order."""
    if pixels.dtype.itemsize > 1:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


def still(
    *before: Chunk, after: tuple[Chunk, ...] = (), picture: Image.Image | None = None
) -> bytes:
    pixels = np.asarray(picture or scene())
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    return png(WIDTH, HEIGHT, *before, (b"IDAT", rows(pixels)), *after, kind=kind)


def palette(*before: Chunk) -> bytes:
    return png(WIDTH, HEIGHT, *before, (b"IDAT", rows(np.asarray(indexed()))), kind=3)


def sixteen(kind: int, *before: Chunk) -> bytes:
    """16 bits a sample; in the upper left quarter they are 0x1234, 0x1235 and so on."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    pixels = np.asarray(scene()).astype(np.uint16) * 257
    pixels = np.dstack([pixels, np.asarray(clear())[..., 3].astype(np.uint16) * 257])
    pixels = pixels[..., [0, 1, 2, 3] if samples > 2 else [0, 3]][..., :samples].copy()
    if before and before[0][0] == b"tRNS":
        pixels[: HEIGHT // 2, : WIDTH // 2] = 0x1234 + np.arange(samples)
        pixels[HEIGHT // 2 :, : WIDTH // 4] = 0x12FF  # the same but for its low byte
    return png(WIDTH, HEIGHT, *before, (b"IDAT", rows(pixels)), bits=16, kind=kind)


def shallow(bits: int, key: int) -> bytes:
    """Grey of a few bits, one value of which is transparent."""
    line = b"\0" + bytes([0b00011011, 0x5A, 0xF0, 0x33]) * (WIDTH * bits // 32)
    transparent = (b"tRNS", struct.pack(">H", key))
    return png(
        WIDTH, HEIGHT, transparent, (b"IDAT", zlib.compress(line * HEIGHT)), bits=bits, kind=0
    )


def numbers(name: bytes, *values: int) -> Chunk:
    return name, struct.pack(f">{len(values)}I", *values)


def cicp(*values: int) -> Chunk:
    return b"cICP", bytes(values)


def damaged(data: bytes, kind: bytes) -> bytes:
    """A PNG with a wrong CRC of the first chunk of a kind."""
    at = data.index(kind)
    at += 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


GAMMA = numbers(b"gAMA", 100_000)
P3 = numbers(b"cHRM", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def control(frames: int) -> Chunk:
    return numbers(b"acTL", frames, 0)


def frame(number: int, *place: int) -> Chunk:
    """Place: width, height, left, top."""
    return b"fcTL", struct.pack(">5I2H2B", number, *(place or (*SIZE, 0, 0)), 1, 10, 0, 0)


def part(number: int, picture: Image.Image) -> Chunk:
    return b"fdAT", struct.pack(">I", number) + rows(np.asarray(picture))


def animation(*chunks: Chunk) -> bytes:
    """Behind a default image."""
    return still(control(1), after=chunks)


# -- EXIF -----------------------------------------------------------------------------------------


def exif(orientation: int, kind: int = 3, count: int = 1, order: str = "<") -> bytes:
    """EXIF data with an orientation of a type: 1 byte, 3 short, 4 long."""
    code = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}[kind]
    value = struct.pack(order + code, orientation).ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IHHHI", 8, 1, 274, kind, count) + value + bytes(4)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'


def jpeg(**options: object) -> bytes:
    return encoded(scene(), "JPEG", quality=95, **options)


def directory(*entries: tuple[int, int, int], count: int | None = None, more: int = 4) -> bytes:
    """EXIF data with entries (tag, type, number); says that there are `count` of them."""
    head = b"II*\0" + struct.pack("<IH", 8, len(entries) if count is None else count)
    return head + b"".join(struct.pack("<HHII", t, k, 1, n) for t, k, n in entries) + bytes(more)


def jpeg_parts(*parts: tuple[int, int, bytes]) -> bytes:
    """With parts of a profile: number, how many there are, and what it holds."""
    data = jpeg()
    segments = b"".join(
        b"\xff\xe2"
        + struct.pack(">H", len(content) + 16)
        + b"ICC_PROFILE\0"
        + bytes(head)
        + content
        for *head, content in parts
    )
    return data[:2] + segments + data[2:]


def jpeg_exif(*contents: bytes, prefix: bytes = b"Exif\0\0") -> bytes:
    data = jpeg()
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(content) + 8) + prefix + content for content in contents
    )
    return data[:2] + segments + data[2:]


# -- other formats --------------------------------------------------------------------------------


def gif(screen: tuple[int, int], left: int, top: int, **options: object) -> bytes:
    """A GIF whose first frame lies anywhere on its screen."""
    data = bytearray(encoded(scene().quantize(16).crop((0, 0, 40, 30)), "GIF", **options))
    at = 13 + (3 << (data[10] & 7) + 1)
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    data[6:10] = struct.pack("<HH", *screen)
    data[11] = 3  # colour of the background, which browsers leave out
    data[at + 1 : at + 5] = struct.pack("<HH", left, top)
    return bytes(data)


def bmp(head: int, compression: int, space: bytes = b"", profile: bytes = b"") -> bytes:
    """A BMP of 32 bits a pixel, with masks and maybe a profile behind its pixels."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    red, green, blue, opacity = clear().split()
    pixels = Image.merge("RGBA", (blue, green, red, opacity)).tobytes()
    rest = struct.pack("<iiHHIIiiII", WIDTH, -HEIGHT, 1, 32, compression, len(pixels), 0, 0, 0, 0)
    header = struct.pack("<I", head) + rest + masks
    header = header.ljust(head, b"\0") if head > 40 else header[: 40 + 12 * (compression == 3)]
    if profile:
        place = struct.pack("<II", head + len(pixels), len(profile))
        header = header[:56] + space + header[60:112] + place + header[120:]
    start = 14 + len(header)
    size = struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    return b"BM" + size + header + pixels + profile


def avif(
    primaries: int, transfer: int, picture: Image.Image | None = None, **more: object
) -> bytes:
    data = encoded(picture or scene(), "AVIF", quality=95, subsampling="4:4:4", **more)
    for at in (data.index(b"nclx") + 4, data.rindex(b"nclx") + 4):
        data = data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]
    return data


def cropped(width: int, height: int, right: int, below: int, orientation: int = 1) -> bytes:
    """An AVIF with a crop, whose centre lies so many halves of a pixel from the middle."""
    found = Image.Exif()
    found[0x0112] = orientation
    data = bytearray(encoded(scene(), "AVIF", quality=95, exif=found))
    clap = box(b"clap", struct.pack(">4IiIiI", width, 1, height, 1, right, 2, below, 2))

    def add(at: int, number: int) -> None:
        data[at : at + 4] = struct.pack(">I", int.from_bytes(data[at : at + 4], "big") + number)

    uses = data.index(b"ipma") - 4
    count = uses + 18
    used = data[count]
    properties = data.index(b"ipco") - 4
    end = properties + int.from_bytes(data[properties : properties + 4], "big")
    number, at = 0, properties + 8
    while at < end:
        number, at = number + 1, at + int.from_bytes(data[at : at + 4], "big")
    turns = (b"irot" in data) + (b"imir" in data)  # the last ones; a crop comes before
    data.insert(count + 1 + used - turns, 0x80 | number + 1)
    data[count] += 1
    add(uses, 1)
    data[end:end] = clap
    add(properties, len(clap))
    for kind in (b"iprp", b"meta"):
        add(data.index(kind) - 4, len(clap) + 1)
    places = data.index(b"iloc")
    for item in range(int.from_bytes(data[places + 10 : places + 12], "big")):
        add(places + 18 + 14 * item, len(clap) + 1)
    return bytes(data)


def turned(image_format: str, orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return encoded(scene(), image_format, quality=95, exif=found)


def two(image_format: str, **options: object) -> bytes:
    return encoded(
        clear(), image_format, save_all=True, append_images=[other().convert("RGBA")], **options
    )


def small_webp() -> bytes:
    """An animated WebP that has no opacity, but a first frame smaller than its canvas."""
    frames = [one.crop((0, 0, 32, 24)) for one in (scene(), other())]
    data = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[20] &= ~16
    data[24:30] = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    return bytes(data)


def grey(mode: str = "L") -> Image.Image:
    return clear().convert(mode) if mode == "LA" else scene().convert(mode)


def indexed() -> Image.Image:
    return scene().quantize(16)


COLOURS = bytes(indexed().getpalette() or ())


def with_icc(picture: Image.Image, image_format: str, profile: bytes, **options: object) -> bytes:
    return encoded(picture, image_format, icc_profile=profile, **options)
