"""Overlays: heat maps rendered from stored masks."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pictures import png
from pictures.decoders import Decoders

RENDERER = 2
"""Part of every `ETag`; increment it when the same request yields different pixels."""

DEFAULT_OPACITY = 0.6

_LEVELS = 256
# Position of IHDR's content in a PNG, and its last bytes for a mask: 8-bit grey, not interlaced.
_HEADER = slice(16, 29)
_HEADER_END = 33
_COLOUR_TYPE, _INDEXED = 9, 3
_GREY = bytes([8, 0, 0, 0, 0])


class Colormap(StrEnum):
    """Colours of a heat map."""

    HEAT = "heat"
    VIRIDIS = "viridis"


# Stops at equal distances, from weak to strong. `heat`: yellow, orange, red, violet; readable on
# photographs, and in order of lightness. `viridis` is Matplotlib's, within 7 of 255; it suits
# readers with any colour vision.
_STOPS = {
    Colormap.HEAT: "ffeda0 feb24c f03b20 7a0177",
    Colormap.VIRIDIS: "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1f9f88 "
    "27ad81 3dbc74 5cc863 81d34d aadc32 d5e21a fde725",
}


def _table(stops: str) -> NDArray[np.uint8]:
    anchors = np.array([[*bytes.fromhex(stop)] for stop in stops.split()])
    at = np.linspace(0, len(anchors) - 1, _LEVELS)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.stack(channels, 1).round().astype(np.uint8)


COLORMAPS = {name: _table(stops) for name, stops in _STOPS.items()}
"""RGB (256, 3) of each mask value."""


def render(
    mask_png: bytes, colormap: Colormap = Colormap.HEAT, opacity: float = DEFAULT_OPACITY
) -> bytes:
    """Render the heat map of a stored mask, to be placed over the picture.

    Only the header changes: grey values become indices into a palette with opacity. Pixels are
    copied without decompression, so it takes a millisecond for any size.

    Args:
        mask_png: 8-bit grey PNG.
        colormap: colours of the heat map.
        opacity: 0 to 1, at probability 1; scaled linearly below.

    Returns:
        PNG with a palette and transparency.

    Raises:
        ValueError: if the mask is not an 8-bit grey PNG.
    """
    header = bytearray(mask_png[_HEADER])
    if header[8:] != _GREY:
        raise ValueError("a mask must be an 8-bit grey PNG")
    header[_COLOUR_TYPE] = _INDEXED
    return b"".join(
        (
            mask_png[:8],
            png.chunk(b"IHDR", bytes(header)),
            png.chunk(b"PLTE", COLORMAPS[colormap].tobytes()),
            png.chunk(b"tRNS", bytes(_alphas(opacity))),
            mask_png[_HEADER_END:],
        )
    )


def composite(
    decoders: Decoders,
    picture: bytes,
    mask_png: bytes,
    colormap: Colormap,
    opacity: float,
    *,
    side: int | None = None,
    frame: int = 1,
) -> bytes:
    """Blend a picture with the heat map of its mask.

    Args:
        decoders: processes that decode and blend.
        picture: the uploaded file.
        mask_png: 8-bit grey PNG of the picture's size.
        colormap: colours of the heat map.
        opacity: 0 to 1, at probability 1; scaled linearly below.
        side: the result fits into side x side pixels; None keeps the picture's size.
        frame: number of the frame or page that the mask is of.

    Returns:
        Opaque PNG.

    Raises:
        PictureError: if the picture cannot be decoded.
    """
    alphas = bytes(_alphas(opacity))
    colours = COLORMAPS[colormap].tobytes()
    return decoders.composite(picture, mask_png, colours, alphas, side, frame)


def _alphas(opacity: float) -> list[int]:
    return [round(value * opacity) for value in range(_LEVELS)]
