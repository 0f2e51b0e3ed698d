"""Small files of every format that browsers show, made here: each has something that decides
which pixels are shown, or that must not."""

from __future__ import annotations

import struct
import zlib
from functools import partial

import numpy as np

from tests.browser.builders import (
    COLOURS,
    GAMMA,
    HEIGHT,
    P3,
    SIZE,
    WIDTH,
    XMP,
    ZEROS,
    Make,
    animation,
    avif,
    bmp,
    cicp,
    clear,
    control,
    cropped,
    damaged,
    directory,
    exif,
    frame,
    gif,
    grey,
    grey_profile,
    iccp,
    indexed,
    jpeg,
    jpeg_exif,
    jpeg_parts,
    linear_profile,
    numbers,
    other,
    palette,
    part,
    rows,
    scene,
    shallow,
    sixteen,
    small_webp,
    still,
    swapped_profile,
    table_profile,
    turned,
    two,
    with_icc,
)
from tests.samples import encoded, srgb_profile

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
