"""Text hidden in the lowest bits of a PNG's alpha channel, as written by NovelAI and others."""

from __future__ import annotations

import json
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

from pictures import pngchunks
from pictures.errors import PictureError
from pictures.origin import Source, Statement
from pictures.provenance import generators
from pictures.provenance.embedded import MAX_PART
from pictures.source import Source as Bytes

_PLAIN, _COMPRESSED = b"stealth_pnginfo", b"stealth_pngcomp"
_MAGIC_BITS, _LENGTH_BITS = 8 * len(_PLAIN), 32
_RGBA, _BYTES, _BITS = 6, 4, 8  # PNG colour type, bytes per pixel, bits per sample
_MAX_PIXELS = 2**24
_PREFIX = _PLAIN[:2]
"""First bytes of the text, checked before the picture is decoded."""


def read(png: bytes) -> list[Statement]:
    """Read the hidden text of a PNG, which runs column by column.

    Raises:
        Exception: Of any kind, if the text after the signature is broken.
    """
    width, height, bits, colour = (
        int.from_bytes(png[16:20], "big"),
        int.from_bytes(png[20:24], "big"),
        *png[24:26],
    )
    interlaced = png[28]
    if (bits, colour, interlaced) != (_BITS, _RGBA, 0) or width * height > _MAX_PIXELS:
        return []
    if not _begins(png, width, height):
        return []
    with Image.open(BytesIO(png), formats=("PNG",)) as image:
        alpha = np.asarray(image.getchannel("A"))
    hidden = np.packbits(alpha.T.ravel() & 1).tobytes()
    start = (_MAGIC_BITS + _LENGTH_BITS) // 8
    length = int.from_bytes(hidden[len(_PLAIN) : start], "big") // 8
    body = hidden[start : start + length]
    if hidden.startswith(_COMPRESSED):
        body = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, MAX_PART)
    elif not hidden.startswith(_PLAIN):
        return []
    text = body[:MAX_PART].decode("utf-8", "replace")
    texts = [("parameters", text)]
    if text.startswith("{"):
        known = json.loads(text)
        texts = [
            (str(name), value if isinstance(value, str) else json.dumps(value))
            for name, value in known.items()
        ]
    return generators.read(texts, Source.ALPHA)


def _begins(png: bytes, width: int, height: int) -> bool:
    """Whether the first rows start the signature; decompresses only these rows."""
    rows = 8 * len(_PREFIX)
    if height < rows:
        return False
    stride = 1 + _BYTES * width
    pixels = zlib.decompressobj()
    found = bytearray()
    source = Bytes(png)
    try:
        for chunk in pngchunks.chunks(source):
            if chunk.kind == b"IDAT":
                data = png[chunk.body : chunk.end - 4]
                found += pixels.decompress(data, rows * stride - len(found))
            if len(found) >= rows * stride:
                break
    except (PictureError, zlib.error):
        return False
    if len(found) < rows * stride:
        return False
    # In the first column filters depend only on the value above, since values to the left are 0.
    above, bit_text = 0, 0
    for row in range(rows):
        how, value = found[row * stride], found[row * stride + _BYTES]
        above = (value + (0, 0, above, above // 2, above)[how % 5]) % 256
        bit_text = bit_text << 1 | above & 1
    return bit_text.to_bytes(len(_PREFIX), "big") == _PREFIX
