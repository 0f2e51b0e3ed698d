"""Whether a picture is mostly text: a scanned page, a screenshot, a slide."""

import math

import numpy as np
from numpy.typing import NDArray

_LONGEST = 1400  # pixels; larger pictures are subsampled by 2, 3, ...
_SCALES = 3  # each half the size of the one before: small and large type
_BLOCK = 16  # pixels
_FEWEST = 16  # blocks
_FLAT = 24  # largest contrast (of 255) of a flat block: paper with noise
_INK = 80  # smallest contrast of a block with text
_GROUND = 0.2  # share of the contrast within which a pixel counts as background
_ACROSS, _DOWN = 1.2, 0.6  # minimum changes between background and ink per row and per column
_LEAST = 0.1  # minimum share of text blocks, and of flat blocks
_TOGETHER = 0.7  # minimum share of both kinds together


def mostly_text(picture: NDArray[np.uint8]) -> bool:
    """Return whether a picture is mostly text on a plain background.

    It counts flat blocks, and blocks of two levels that change several times in each direction, as
    strokes of letters do. It does not read letters: sheet music and line drawings count too. It is
    true for none of the 1,413 photographs that the limits were chosen on, none of 140 others, and
    67 of 128 scanned receipts.

    Args:
        picture: RGB pixels (H, W, 3).
    """
    step = math.ceil(max(picture.shape[:2]) / _LONGEST)
    red, green, blue = np.moveaxis(picture[::step, ::step], 2, 0).astype(np.uint16)
    grey = (red + green + green + blue) >> 2
    for scale in range(_SCALES):
        if scale:
            grey = _halved(grey)
        if _is_written(grey.astype(np.uint8)):
            return True
    return False


def _halved(grey: NDArray[np.uint16]) -> NDArray[np.uint16]:
    rows, columns = (side // 2 * 2 for side in grey.shape)
    upper, lower = grey[:rows:2, :columns], grey[1:rows:2, :columns]
    sums = upper + lower
    halved: NDArray[np.uint16] = np.right_shift(sums[:, ::2] + sums[:, 1::2], 2, dtype=np.uint16)
    return halved


def _is_written(grey: NDArray[np.uint8]) -> bool:
    """Return whether grey levels (H, W) are mostly text, at one scale."""
    rows, columns = (side // _BLOCK for side in grey.shape)
    if rows * columns < _FEWEST:
        return False
    bands = grey[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns * _BLOCK)
    darkest, brightest = (
        edge(edge(bands, 1).reshape(rows, columns, _BLOCK), 2).astype(np.int16)
        for edge in (np.min, np.max)
    )
    contrast = brightest - darkest
    flat = (contrast < _FLAT).mean()
    strong = contrast > _INK
    if flat < _LEAST or flat + strong.mean() < _TOGETHER:
        return False  # most photographs end here
    blocks = bands.reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2)[strong]
    written = _strokes(blocks, darkest[strong], brightest[strong]).sum() / strong.size
    return bool(written >= _LEAST and flat + written >= _TOGETHER)


def _strokes(
    blocks: NDArray[np.uint8], darkest: NDArray[np.int16], brightest: NDArray[np.int16]
) -> NDArray[np.bool_]:
    """Return which blocks (N, B, B) look like text (N,)."""
    low, high = darkest[:, None, None], brightest[:, None, None]
    margin = (high - low) * _GROUND
    dark = blocks < (low + high) / 2
    is_dark_ground = dark.mean((1, 2)) > 0.5
    ground = np.where(
        is_dark_ground,
        (blocks < low + margin).mean((1, 2)),
        (blocks > high - margin).mean((1, 2)),
    )
    across = (dark[:, :, 1:] != dark[:, :, :-1]).sum((1, 2)) / _BLOCK
    down = (dark[:, 1:] != dark[:, :-1]).sum((1, 2)) / _BLOCK
    strokes: NDArray[np.bool_] = (ground > 0.5) & (across > _ACROSS) & (down > _DOWN)
    return strokes
