"""Heat maps rendered from stored masks."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

# Anchor colours from weak to strong: yellow, orange, red, violet. Readable on photographs, and
# in order of lightness, so that it works without colour vision.
_ANCHORS = np.array(
    [[255, 237, 160], [254, 178, 76], [240, 59, 32], [122, 1, 119]], dtype=np.float64
)
_LEVELS = 256
_COMPRESSION = 1  # zlib level: the masks are smooth, so higher levels cost time and save little


def _palette() -> bytes:
    """256 RGBA entries: the colour of each mask value, its opacity in proportion."""
    at = np.linspace(0, len(_ANCHORS) - 1, _LEVELS)
    table = np.empty((_LEVELS, 4), np.uint8)
    for channel in range(3):
        table[:, channel] = np.interp(at, range(len(_ANCHORS)), _ANCHORS[:, channel]).round()
    table[:, 3] = np.arange(_LEVELS)
    return table.tobytes()


_PALETTE = _palette()


def heat_map(mask: Image.Image) -> Image.Image:
    """Colour a mask: the more probable, the more opaque.

    Args:
        mask: 8-bit grey, 0 = probability 0, 255 = probability 1.

    Returns:
        RGBA picture of the same size.
    """
    indexed = Image.frombytes("P", mask.size, mask.tobytes())
    indexed.putpalette(_PALETTE, "RGBA")
    return indexed.convert("RGBA")


def render(mask_png: bytes) -> bytes:
    """PNG heat map of a stored mask (PNG)."""
    with Image.open(io.BytesIO(mask_png), formats=("PNG",)) as mask:
        coloured = heat_map(mask.convert("L"))
    encoded = io.BytesIO()
    coloured.save(encoded, "PNG", compress_level=_COMPRESSION)
    return encoded.getvalue()
