"""Summary of a probability mask: area, maximum and regions."""

from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pictures.findings import Region

MAX_REGIONS = 16
"""Maximum number of regions listed."""
MIN_AREA = 0.001
"""Minimum share of the picture that a listed region covers."""

_EXACT_SIDE = 256  # regions of larger maps are found on block means
_STRIDE = 4  # resolution of the network's masks, pixels; the smallest block
_MAX_SIDE = 1024  # of a map of block means


class MaskSummary(NamedTuple):
    """Area, maximum and regions of a mask."""

    area_fraction: float
    """Share of the picture whose pixels reach the threshold, 0 to 1."""
    max: float
    """Largest probability, 0 to 1."""
    regions: tuple[Region, ...]
    """Largest first."""


def summarise(mask: NDArray[Any], threshold: float) -> MaskSummary:
    """Summarise a probability map.

    Area and maximum are exact. Regions of a map with a side above 256 are computed from block
    means, so their boxes are multiples of a block: 4 x 4 pixels, the resolution of the network's
    masks, up to a side of 4096.

    Args:
        mask: Probabilities (H, W): floats in [0, 1] or uint8 in 0 to 255.
        threshold: Probability from which a pixel is marked, in [0, 1].

    Returns:
        The summary.
    """
    full_scale = 255.0 if mask.dtype == np.uint8 else 1.0
    marked = mask >= threshold * full_scale
    return MaskSummary(
        area_fraction=float(np.count_nonzero(marked) / marked.size),
        max=float(mask.max() / full_scale),
        regions=_find_regions(mask, marked, threshold * full_scale, full_scale),
    )


def _find_regions(
    mask: NDArray[Any], marked: NDArray[np.bool_], threshold: float, full_scale: float
) -> tuple[Region, ...]:
    height, width = mask.shape
    side = max(height, width)
    block = max(_STRIDE, ceil(side / _MAX_SIDE)) if side > _EXACT_SIDE else 1
    values = mask
    if block > 1:
        values = np.asarray(Image.fromarray(mask).reduce(block))  # means of blocks
        marked = values >= threshold
    labels, count = ndimage.label(marked)
    if not count:
        return ()
    sizes = np.bincount(labels.ravel())[1:]
    sums = np.bincount(labels.ravel(), weights=values.ravel())[1:]
    boxes = ndimage.find_objects(labels)
    regions = []
    for index in np.argsort(-sizes, kind="stable")[:MAX_REGIONS]:
        area = float(sizes[index] / values.size)
        if area < MIN_AREA:
            break
        rows, columns = boxes[index]
        score = sums[index] / sizes[index] / full_scale
        x, y = columns.start * block, rows.start * block
        right, bottom = min(columns.stop * block, width), min(rows.stop * block, height)
        regions.append(Region((x, y, right - x, bottom - y), area, float(score)))
    return tuple(regions)
