"""Random regions for inpainting: COCO-Inpaint's four mask types."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.data.objects import Shape

AREAS = (0.01, 0.6)
"""Minimum and maximum area of a region, relative to the picture (our choice)."""
_SIDES = (0.2, 0.8)  # of a random region's box, relative to the picture
_CORNERS = (5, 12)  # corners of a random polygon
_ATTEMPTS = 100

Region = NDArray[np.bool_]  # (H, W)


class MaskType(StrEnum):
    """How a region is chosen."""

    SEGMENTATION = "segmentation"
    """The shape of an object."""
    BOX = "box"
    """The bounding box of an object."""
    RANDOM_POLYGON = "random-polygon"
    RANDOM_BOX = "random-box"

    @property
    def needs_object(self) -> bool:
        """Whether the region is that of an object."""
        return self in (MaskType.SEGMENTATION, MaskType.BOX)


def draw(
    kind: MaskType, size: tuple[int, int], shapes: Sequence[Shape], rng: np.random.Generator
) -> tuple[Region, str | None] | None:
    """Sample a region.

    Args:
        kind: Mask type.
        size: Height and width of the picture.
        shapes: Objects of the picture.
        rng: Source of randomness.

    Returns:
        The region (H, W), 1 % to 60 % of the picture, and the name of its object, if any. None: no
        object has a suitable size.
    """
    if not kind.needs_object:
        for _ in range(_ATTEMPTS):
            region = _random_region(kind, size, rng)
            if _fits(region):
                return region, None
        return None
    found = []
    for shape in shapes:
        region = _box_around(shape.region) if kind is MaskType.BOX else shape.region
        if _fits(region):
            found.append((region, shape.name))
    return found[rng.integers(len(found))] if found else None


def _random_region(kind: MaskType, size: tuple[int, int], rng: np.random.Generator) -> Region:
    import cv2

    sides = np.maximum(1, np.array(size) * rng.uniform(*_SIDES, 2)).astype(int)  # h, w
    top, left = (int(rng.integers(room + 1)) for room in np.array(size) - sides)
    height, width = map(int, sides)
    region = np.zeros(size, np.uint8)
    if kind is MaskType.RANDOM_BOX:
        region[top : top + height, left : left + width] = 1
    else:
        corners = int(rng.integers(_CORNERS[0], _CORNERS[1] + 1))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = rng.uniform(0.5, 1, corners)  # relative to the half sides of the box
        across = left + width / 2 * (1 + radii * np.cos(angles))
        down = top + height / 2 * (1 + radii * np.sin(angles))
        cv2.fillPoly(region, [np.stack([across, down], axis=1).astype(np.int32)], (1,))
    return region.astype(bool)


def _box_around(region: Region) -> Region:
    box = np.zeros_like(region)
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if len(rows):
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _fits(region: Region) -> bool:
    return AREAS[0] <= float(region.mean()) <= AREAS[1]
