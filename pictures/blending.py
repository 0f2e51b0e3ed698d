"""Heat maps of masks, alone or blended with the picture."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures import png
from pictures.decoding import bands

_BAND = 2**16  # pixels blended at once; fits into a core's cache
_AREA = Image.Resampling.BOX


def heat_map(mask: Image.Image, colours: bytes) -> Image.Image:
    """Colour a mask; opacity follows the probability.

    Args:
        mask: 8-bit grey, 0 = probability 0, 255 = probability 1.
        colours: RGB of each of the 256 mask values (768 bytes).

    Returns:
        RGBA image of the same size.
    """
    coloured = _coloured(mask, colours)
    coloured.putalpha(mask)
    return coloured


def composite(
    picture: Image.Image, mask_png: bytes, colours: bytes, alphas: Sequence[int]
) -> bytes:
    """Blend a picture with the heat map of its mask.

    Args:
        picture: RGB.
        mask_png: 8-bit grey PNG; resampled to the size of the picture by area average.
        colours: RGB of each of the 256 mask values (768 bytes).
        alphas: Opacity of each of the 256 mask values, 0 to 255.

    Returns:
        Opaque PNG of the same size.
    """

    def blended() -> Iterator[NDArray[np.uint8]]:
        with Image.open(io.BytesIO(mask_png), formats=("PNG",)) as mask:
            fitting = mask if mask.size == picture.size else mask.resize(picture.size, _AREA)
            for box in bands(picture.size, _BAND):
                weights = fitting.crop(box)
                band = picture.crop(box)
                band.paste(_coloured(weights, colours), mask=weights.point(alphas))
                yield np.asarray(band)

    return png.encode(blended())


def shrink(mask_png: bytes, side: int) -> bytes:
    """Shrink a mask to fit into side x side pixels, by area average; it is never enlarged.

    Returns:
        8-bit grey PNG.
    """
    with Image.open(io.BytesIO(mask_png), formats=("PNG",)) as mask:
        mask.thumbnail((side, side), _AREA)
        return png.encode([np.asarray(mask)])


def _coloured(mask: Image.Image, colours: bytes) -> Image.Image:
    indexed = Image.frombytes("P", mask.size, mask.tobytes())
    indexed.putpalette(colours)
    return indexed.convert("RGB")
