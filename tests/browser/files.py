"""Small files of every format that browsers show, made here: each has something that decides
which pixels are shown, or that must not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial

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


FILES: dict[str, Make] = {
    # which picture
    "png": still,
    "png palette": lambda: encoded(indexed(), "PNG", transparency=3),
    "png palette that is too short": lambda: palette((b"PLTE", COLOURS[:12])),
    "png palette that is too short, opacity": lambda: palette(
        (b"PLTE", COLOURS[:12]), (b"tRNS", bytes([255, 200, 150, 99]))
    ),
    "png opacity before its palette": lambda: palette((b"tRNS", bytes(8)), (b"PLTE", COLOURS)),
    "png opacity of too many colours": lambda: palette((b"PLTE", COLOURS), (b"tRNS", bytes(300))),
    "png cicp behind the palette": lambda: palette((b"PLTE", COLOURS), cicp(12, 8, 0, 1)),
    "png bilevel": lambda: encoded(scene().convert("1"), "PNG"),
    "apng": lambda: two("PNG"),
    "apng default image outside": lambda: animation(frame(0), part(1, other())),
    "apng default image outside, in pieces": lambda: animation(
        frame(0),
        *(
            (b"fdAT", struct.pack(">I", 1 + at) + rows(np.asarray(other()))[at * 999 :][:999])
            for at in range(1 + len(rows(np.asarray(other()))) // 999)
        ),
    ),
    "apng small frame": lambda: animation(
        frame(0, 32, 24, 20, 10), part(1, other().crop((0, 0, 32, 24)))
    ),
    "apng turned small frame": lambda: still(
        (b"eXIf", exif(6)),
        control(1),
        after=(frame(0, 32, 24, 20, 10), part(1, other().crop((0, 0, 32, 24)))),
    ),
    "apng control of no frames": lambda: still(control(0), after=(frame(0), part(1, other()))),
    **{
        f"apng control behind {what}": partial(
            lambda c: still(c, control(1), after=(frame(0), part(1, other()))), chunk
        )
        for what, chunk in (
            ("one that is too short", (b"acTL", b"\0")),
            ("one of no frames", control(0)),
        )
    },
    "apng control of too many frames": lambda: still(
        control(2**31 + 1), after=(frame(0), part(1, other()))
    ),
    "apng control behind the pixels": lambda: still(after=(control(1), frame(0), part(1, other()))),
    "apng control with a wrong crc": lambda: damaged(
        animation(frame(0), part(1, other())), b"acTL"
    ),
    "apng transparent frame": lambda: still(
        (b"tRNS", np.asarray(other()).astype(">u2")[0, 0].tobytes()),
        control(1),
        after=(frame(0), part(1, other())),
    ),
    "gif": lambda: encoded(indexed(), "GIF"),
    "gif interlaced": lambda: encoded(indexed(), "GIF", interlace=1, transparency=3),
    "gif animated": lambda: encoded(
        indexed(), "GIF", save_all=True, append_images=[other().quantize(16)], transparency=2
    ),
    "gif small frame": lambda: gif(SIZE, 15, 10),
    "gif small transparent frame": lambda: gif(SIZE, 15, 10, transparency=1),
    "gif frame beyond the screen": lambda: gif((20, 20), 15, 10),
    "webp animated": lambda: two("WEBP", lossless=True, background=(9, 200, 9, 255)),
    "webp animated, profile": lambda: two("WEBP", lossless=True, icc_profile=swapped_profile()),
    "webp animated, small frame without opacity": small_webp,
    "avif animated": lambda: encoded(
        scene(), "AVIF", quality=95, range="limited", save_all=True, append_images=[other()]
    ),
    "avif animated, opacity": lambda: two("AVIF", quality=95, range="limited"),
    "avif cropped from its corner": lambda: cropped(30, 20, 30 - WIDTH, 20 - HEIGHT),
    "avif cropped and turned": lambda: cropped(30, 20, 30 - WIDTH, 20 - HEIGHT, 6),
    "avif cropped elsewhere": lambda: cropped(30, 20, 0, 0),
    "jpeg of two": lambda: encoded(
        scene(), "MPO", quality=95, save_all=True, append_images=[other()]
    ),
    # orientation
    **{f"jpeg orientation {n}": partial(turned, "JPEG", n) for n in (2, 5, 8)},
    **{f"avif orientation {n}": partial(turned, "AVIF", n) for n in (2, 3, 4, 5, 6, 7, 8)},
    "png orientation": partial(turned, "PNG", 6),
    "webp orientation": partial(turned, "WEBP", 6),
    "jpeg orientation, big end first": lambda: jpeg_exif(exif(6, order=">")),
    **{
        f"jpeg orientation of type {kind}": partial(lambda k: jpeg_exif(exif(6, k)), kind)
        for kind in (1, 4, 6, 8, 9)
    },
    "jpeg two orientations": lambda: jpeg_exif(exif(6, count=2)),
    "jpeg two exif": lambda: jpeg_exif(exif(1), exif(6)),
    "jpeg orientation behind one of another type": lambda: jpeg_exif(
        directory((274, 4, 6), (274, 3, 3))
    ),
    "jpeg orientation behind one out of range": lambda: jpeg_exif(
        directory((274, 3, 9), (274, 3, 6))
    ),
    "jpeg exif of fewer entries than it says": lambda: jpeg_exif(directory((274, 3, 6), count=500)),
    "jpeg orientation in the directory of exif": lambda: jpeg_exif(
        directory((34665, 4, 26)) + directory((274, 3, 6))[8:]
    ),
    "jpeg orientation behind a directory of exif that is not there": lambda: jpeg_exif(
        directory((34665, 4, 2**31), (274, 3, 6))
    ),
    "jpeg exif cut off in its entry": lambda: jpeg_exif(exif(6)[:-6]),
    "jpeg exif with its magic swapped": lambda: jpeg_exif(b"II\0*" + exif(6)[4:]),
    "jpeg exif of another prefix": lambda: jpeg_exif(exif(6), prefix=b"Exif\0\xff"),
    "jpeg exif behind an empty one": lambda: jpeg_exif(b"", exif(6)),
    "png exif behind an empty one": lambda: still((b"eXIf", b""), (b"eXIf", exif(6))),
    "png exif of very many entries": lambda: still(
        (b"eXIf", directory((300, 3, 6), count=60_000, more=12 * 60_000))
    ),
    "jpeg orientation out of range": lambda: jpeg_exif(exif(9)),
    "png orientation of type 4": lambda: still((b"eXIf", exif(6, 4))),
    "png two exif": lambda: still((b"eXIf", exif(6)), (b"eXIf", exif(1))),
    "png exif with a prefix": lambda: still((b"eXIf", b"Exif\0\0" + exif(6))),
    "png exif with a wrong crc": lambda: damaged(still((b"eXIf", exif(6))), b"eXIf"),
    "png exif behind the pixels": lambda: still(after=((b"eXIf", exif(6)),)),
    **{
        f"{name.lower()} orientation in xmp": partial(encoded, scene(), name, quality=95, xmp=XMP)
        for name in ("JPEG", "WEBP", "AVIF")
    },
    "png orientation in xmp": lambda: still((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    # colours by a profile
    **{
        f"{name.lower()} {what}": partial(
            lambda n, p: with_icc(scene(), n, p(), quality=95), name, profile
        )
        for name in ("JPEG", "PNG", "WEBP", "AVIF")
        for what, profile in (
            ("linear", linear_profile),
            ("swapped", swapped_profile),
            ("inverted", table_profile),
        )
    },
    **{
        f"{name.lower()} profile cut off": partial(
            with_icc, scene(), name, swapped_profile()[:-20], quality=95
        )
        for name in ("JPEG", "WEBP")
    },
    "jpeg srgb": lambda: with_icc(scene(), "JPEG", srgb_profile(), quality=95),
    "jpeg profile, and one more part": lambda: jpeg_parts(
        (1, 1, swapped_profile()), (1, 1, linear_profile())
    ),
    "jpeg profile behind an empty part": lambda: jpeg_parts((1, 2, b""), (1, 1, swapped_profile())),
    "jpeg profile without a part": lambda: jpeg_parts((1, 2, swapped_profile())),
    "jpeg broken profile": lambda: with_icc(scene(), "JPEG", b"profile", quality=95),
    "jpeg grey, grey profile": lambda: with_icc(grey(), "JPEG", grey_profile(), quality=95),
    "jpeg grey, rgb profile": lambda: with_icc(grey(), "JPEG", linear_profile(), quality=95),
    "jpeg rgb, grey profile": lambda: with_icc(scene(), "JPEG", grey_profile(), quality=95),
    "jpeg cmyk": lambda: encoded(scene().convert("CMYK"), "JPEG", quality=95),
    "jpeg cmyk, rgb profile": lambda: with_icc(
        scene().convert("CMYK"), "JPEG", linear_profile(), quality=95
    ),
    "png grey, grey profile": lambda: with_icc(grey(), "PNG", grey_profile()),
    "png grey and opacity, grey profile": lambda: with_icc(grey("LA"), "PNG", grey_profile()),
    "png grey and opacity, rgb profile": lambda: with_icc(grey("LA"), "PNG", linear_profile()),
    "png palette, profile": lambda: with_icc(indexed(), "PNG", linear_profile(), transparency=3),
    "png opacity, profile": lambda: with_icc(clear(), "PNG", linear_profile()),
    "png 16 bits, rgb profile": lambda: sixteen(2, iccp(linear_profile())),
    "png 16 bits grey, grey profile": lambda: sixteen(0, iccp(grey_profile())),
    "png 16 bits grey, rgb profile": lambda: sixteen(0, iccp(linear_profile())),
    "png 16 bits grey and opacity, grey profile": lambda: sixteen(4, iccp(grey_profile())),
    "webp opacity, profile": lambda: with_icc(clear(), "WEBP", linear_profile(), lossless=True),
    # colours without a profile
    **{
        f"png cicp {p} {t}": partial(lambda *v: still(cicp(*v, 0, 1)), p, t)
        for p, t in (
            (12, 13),
            (9, 1),
            (9, 14),
            (1, 4),
            (4, 5),
            (5, 7),
            (6, 8),
            (8, 13),
            (10, 13),
            (11, 17),
            (22, 13),
            (2, 8),
            (12, 2),
            (99, 8),
            (1, 9),
        )
    },
    **{
        f"avif nclx {p} {t}": partial(avif, p, t)
        for p, t in ((12, 13), (9, 14), (12, 1), (1, 4), (6, 8), (2, 8), (12, 2), (99, 13), (1, 7))
    },
    "avif animated, nclx": lambda: avif(
        12, 8, range="limited", save_all=True, append_images=[other()]
    ),
    "avif colours in the stream": lambda: encoded(
        scene(), "AVIF", quality=95, codec="aom", advanced={"color-primaries": "smpte432"}
    ).replace(b"colrnclx", b"freenclx"),
    "avif colours in the container before the stream": lambda: encoded(
        scene(), "AVIF", quality=95, codec="aom", advanced={"color-primaries": "smpte432"}
    ),
    "avif nclx and a profile": lambda: avif(12, 8, icc_profile=linear_profile()),
    "png cicp of a narrow range": lambda: still(cicp(12, 8, 0, 0)),
    "png cicp before a profile": lambda: still(iccp(linear_profile()), cicp(12, 13, 0, 1)),
    "png two cicp": lambda: still(cicp(12, 13, 0, 1), cicp(1, 8, 0, 1)),
    "png cicp and opacity": lambda: still(cicp(12, 13, 0, 1), picture=clear()),
    "png cicp grey": lambda: still(cicp(1, 8, 0, 1), picture=grey()),
    "png cicp with a wrong crc": lambda: damaged(still(cicp(12, 8, 0, 1)), b"cICP"),
    **{
        f"png gamma {value}": partial(lambda v: still(numbers(b"gAMA", v)), value)
        for value in (100_000, 45_455, 55_556, 30_000, 0)
    },
    "png gamma and primaries": lambda: still(numbers(b"gAMA", 45_455), P3),
    "png gamma and primaries that are none": lambda: still(GAMMA, numbers(b"cHRM", *[0] * 8)),
    "png primaries without gamma": lambda: still(P3),
    "png gamma of grey": lambda: still(GAMMA, picture=grey("LA")),
    **{
        f"png srgb that is none before gamma, {content!r}": partial(
            lambda c: still((b"sRGB", c), GAMMA), content
        )
        for content in (b"", b"\x09", b"\0\0")
    },
    "png gamma behind one that is too short": lambda: still((b"gAMA", b"\0"), GAMMA),
    "png cicp behind one that is too short": lambda: still((b"cICP", b"\0"), cicp(12, 8, 0, 1)),
    "png srgb before gamma": lambda: still((b"sRGB", b"\0"), GAMMA, P3),
    "png profile before gamma": lambda: still(GAMMA, iccp(swapped_profile())),
    **{
        f"png profile that is {what}": partial(
            lambda c: still((b"iCCP", c), GAMMA), content + zlib.compress(profile)
        )
        for what, content, profile in (
            ("without a name", b"\0\0", swapped_profile()),
            ("of a long name", b"a" * 81 + b"\0\0", swapped_profile()),
            ("compressed otherwise", b"a\0\1", swapped_profile()),
            ("cut off", b"a\0\0", swapped_profile()[:-20]),
        )
    },
    "png gamma and primaries beyond all": lambda: still(
        GAMMA, numbers(b"cHRM", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 2**32 - 6000)
    ),
    "png broken profile, gamma": lambda: still((b"iCCP", b"a\0\0profile"), GAMMA),
    # transparency
    "png opacity": lambda: still(picture=clear()),
    "png 16 bits": lambda: sixteen(2),
    "png 16 bits with opacity": lambda: sixteen(6),
    "png 16 bits rgb, transparent": lambda: sixteen(
        2, (b"tRNS", struct.pack(">3H", 0x1234, 0x1235, 0x1236))
    ),
    "png 16 bits grey, transparent": lambda: sixteen(0, (b"tRNS", struct.pack(">H", 0x1234))),
    **{
        f"png {bits} bits grey, transparent": partial(shallow, bits, key)
        for bits, key in ((1, 1), (2, 1), (4, 5), (8, 0x5A))
    },
    "png transparency of too many bits": lambda: shallow(8, 0x105A),
    "png two transparent colours": lambda: still(
        (b"tRNS", struct.pack(">H", int(np.asarray(grey())[0, 0]))),
        (b"tRNS", struct.pack(">H", int(np.asarray(grey())[20, 20]))),
        picture=grey(),
    ),
    "png transparency cut short": lambda: still((b"tRNS", b"\0")),
    "webp opacity": lambda: encoded(clear(), "WEBP", lossless=True),
    "avif opacity": lambda: encoded(clear(), "AVIF", quality=95, subsampling="4:4:4"),
    **{
        f"bmp of header {head}, compression {kind}": partial(bmp, head, kind)
        for head, kind in ((40, 0), (40, 3), (56, 0), (56, 3), (108, 0), (108, 3), (124, 0))
    },
    # metadata that must not decide
    **{
        f"png {kind.decode()} with a wrong crc": partial(
            lambda k, c: damaged(still((k, c)), k), kind, content
        )
        for kind, content in (
            (b"pHYs", bytes(9)),
            (b"tEXt", b"a\0b"),
            (b"gAMA", struct.pack(">I", 100_000)),
            (b"tRNS", bytes(6)),
            (b"iCCP", iccp(linear_profile())[1]),
            (b"tIME", bytes(7)),
        )
    },
    **{
        f"png large {kind.decode()}": partial(lambda k, c: still((k, c)), kind, content)
        for kind, content in (
            (b"zTXt", b"a\0\0" + ZEROS),
            (b"iTXt", b"a\0\1\0\0\0" + ZEROS),
            (b"iCCP", b"a\0\0" + ZEROS),
        )
    },
    "png large zTXt behind the pixels": lambda: still(after=((b"zTXt", b"a\0\0" + ZEROS),)),
    "png short chunks": lambda: still(
        (b"gAMA", b""), (b"cHRM", b"\0"), (b"pHYs", b""), (b"sBIT", b""), (b"bKGD", b"")
    ),
    "png broken text": lambda: still((b"zTXt", b"a\0\7"), (b"iTXt", b"a"), (b"tEXt", b"\xff" * 90)),
    **{
        f"jpeg short {name}": partial(
            lambda m, c: jpeg()[:2] + struct.pack(">BBH", 255, m, len(c) + 2) + c + jpeg()[2:],
            marker,
            content,
        )
        for name, marker, content in (
            ("jfif", 0xE0, b"JFIF\0\1"),
            ("adobe", 0xEE, b"Adobe\0"),
            ("profile", 0xE2, b"ICC_PROFILE\0"),
            ("photoshop", 0xED, b"Photoshop 3.0\0"),
        )
    },
    "gif odd extensions": lambda: (
        lambda data: data[: 13 + 48] + b"!\xff\0!\x33\1a\0!\xfe\0" + data[13 + 48 :]
    )(encoded(indexed(), "GIF")),
    "jpeg broken exif": lambda: jpeg_exif(b"MM\0*\xff\xff\xff\xff"),
    "jpeg broken mpf": lambda: (
        lambda d: d[:2] + b"\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\xff\0\0" + d[2:]
    )(jpeg()),
    "jpeg unknown segments": lambda: (
        lambda d: d[:2] + b"\xff\xed\0\x15Photoshop 3.0\x008BIM\4" + b"\xff\xee\0\x05abc" + d[2:]
    )(jpeg()),
    "webp broken exif": lambda: encoded(
        scene(), "WEBP", lossless=True, exif=b"MM\0*\xff\xff\xff\xff"
    ),
    # kinds of coding
    "jpeg": jpeg,
    "jpeg progressive": lambda: jpeg(progressive=True),
    "jpeg 4:2:0": lambda: jpeg(subsampling=2),
    "jpeg rgb": lambda: jpeg(keep_rgb=True),
    "jpeg grey": lambda: encoded(grey(), "JPEG", quality=95),
    "webp": lambda: encoded(scene(), "WEBP", quality=95),
    "avif": lambda: encoded(scene(), "AVIF", quality=95),
    "avif grey": lambda: encoded(grey(), "AVIF", quality=95),
    "bmp": lambda: encoded(scene(), "BMP"),
    **{
        f"bmp profile, {kind!r}": partial(bmp, 124, 0, kind, swapped_profile())
        for kind in (b"DEBM", b"KNIL", b"BGRs")
    },
    "bmp palette": lambda: encoded(indexed(), "BMP"),
}

HDR: dict[str, Make] = {
    **{
        f"png {p} {t}": partial(lambda *v: still(cicp(*v, 0, 1)), p, t)
        for p, t in ((9, 16), (9, 18), (1, 16), (12, 18))
    },
    "png hdr and opacity": lambda: still(cicp(9, 16, 0, 1), picture=clear()),
    "png hdr grey": lambda: still(cicp(9, 18, 0, 1), picture=grey()),
    "png bright": lambda: still(cicp(9, 16, 0, 1), numbers(b"cLLI", 40_000_000, 4_000_000)),
    "png dark": lambda: still(cicp(9, 16, 0, 1), numbers(b"cLLI", 4_000_000, 400_000)),
    "png of a bright display": lambda: still(
        cicp(9, 18, 0, 1), (b"mDCV", bytes(16) + struct.pack(">II", 40_000_000, 50))
    ),
    "avif 9 16": partial(avif, 9, 16),
    "avif 9 18": partial(avif, 9, 18),
}
"""HDR, which is tone-mapped."""
