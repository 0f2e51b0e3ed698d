"""Copy-move and splicing forgeries, with TampCOCO's parameters.

Kwon et al. 2022 published the pictures but not the code. The distributions of quality, rotation and
scale are taken from the file names (`{quality}_{target}_{source}[_RT{degrees}][_RS{scale}].jpg`),
and edges are hard. Position and size of the objects are our choice, see below.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from training.data import manifest
from training.data.journal import SkippedError
from training.data.labels import Kind
from training.data.manifest import PictureUnreadableError, Row
from training.data.objects import Objects, ObjectsError
from training.data.originals import Originals
from training.data.pixels import encode_jpeg, encode_region, shorten, write

QUALITIES = (60, 100)
ROTATED = 0.30
ROTATION = 45  # maximum degrees in both directions
SCALED = 0.29
SCALES = (0.75, 1.25)
AREAS = (0.01, 0.5)
"""Minimum and maximum area of a pasted object, relative to the picture (our choice)."""
_LARGEST_OVERLAP = 0.5  # maximum overlap of a copy with its source object (our choice)
_LONGEST_NAME = 90  # bytes of each picture's name in that of a forgery
_ATTEMPTS = 30  # attempts to find a suitable object and position

Picture = NDArray[np.uint8]  # (H, W, 3)
Region = NDArray[np.bool_]  # (H, W)


class Tampering(StrEnum):
    """Source of the pasted object."""

    COPY_MOVE = "copy-move"
    """The same picture."""
    SPLICE = "splice"
    """Another picture."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of a forgery."""

    quality: int
    """JPEG quality, 60 to 100."""
    degrees: int
    """Rotation in degrees, -45 to 45; 0: none."""
    scale: float
    """Scale factor, 0.75 to 1.25; 1: none."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Parameters:
        """Sample the parameters independently of each other."""
        rotated, scaled = rng.random() < ROTATED, rng.random() < SCALED
        return cls(
            quality=int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)),
            degrees=int(rng.integers(-ROTATION, ROTATION + 1)) if rotated else 0,
            scale=round(float(rng.uniform(*SCALES)), 2) if scaled else 1.0,
        )

    def name(self, target: str, source: str) -> str:
        """Return TampCOCO's file name for the forgery, without suffix."""
        turned = f"_RT{self.degrees}" if self.degrees else ""
        resized = f"_RS{self.scale}" if self.scale != 1 else ""
        return f"{self.quality}_{target}_{source}{turned}{resized}"


class Forger:
    """Makes forgeries; each depends only on its number and the seed."""

    def __init__(
        self, how: Tampering, originals: Originals, objects: Objects, folder: Path, seed: int
    ) -> None:
        """Choose the possible targets and sources.

        Args:
            how: Copy-move or splice.
            originals: Targets and sources; both pictures of a splice have the same split.
            objects: Object shapes.
            folder: Output folder (`{cm,sp}_images` and `{cm,sp}_masks`).
            seed: Random seed.

        Raises:
            ObjectsError: No picture has a known object.
        """
        self._how = how
        self._originals = originals
        self._objects = objects
        self._folder = folder
        self._seed = seed
        self._sources: dict[str | None, list[Row]] = defaultdict(list)
        for row in originals.rows:
            if objects.knows(row):
                self._sources[row.split].append(row)
        if how is Tampering.COPY_MOVE:
            self._targets = [row for rows in self._sources.values() for row in rows]
        else:
            self._targets = [row for row in originals.rows if row.split in self._sources]
        if not self._targets:
            raise ObjectsError("no picture has object annotations")

    @property
    def pictures(self) -> int:
        """Number of possible targets."""
        return len(self._targets)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings that determine the forgeries."""
        return {
            "tool": f"tamper {self._how}",
            "seed": self._seed,
            "pictures": self._originals.digest,
        }

    def make(self, item: int) -> list[Row]:
        """Write forgery number `item` and its mask.

        Raises:
            SkippedError: No suitable object was found.
            OSError: A file cannot be written.
        """
        rng = np.random.default_rng((self._seed, item))
        parameters = Parameters.draw(rng)
        trouble = "no object has a suitable size"
        for _ in range(_ATTEMPTS):
            target = self._targets[rng.integers(len(self._targets))]
            source = target
            if self._how is Tampering.SPLICE:
                sources = self._sources[target.split]
                source = sources[rng.integers(len(sources))]
                if source.source_id == target.source_id:
                    continue
            try:
                forged = self._paste(target, source, parameters, rng)
            except (PictureUnreadableError, FileNotFoundError) as error:
                trouble = str(error)
                continue
            if forged is not None:
                return [self._save(item, target, source, parameters, *forged)]
        raise SkippedError(f"no forgery after {_ATTEMPTS} attempts: {trouble}")

    def _paste(
        self, target: Row, source: Row, parameters: Parameters, rng: np.random.Generator
    ) -> tuple[Picture, Region] | None:
        """Return the target with a pasted object and its region; None if it does not fit."""
        background = self._originals.read(target)
        foreground = background if source is target else self._originals.read(source)
        shapes = self._objects.of(source)
        if not shapes:
            return None
        shape = shapes[rng.integers(len(shapes))].region
        if shape.shape != foreground.shape[:2]:
            raise PictureUnreadableError(f"{source.path}: its objects have another size")
        if not _fits(shape.sum() / shape.size):
            return None
        patch, cutout = transform(foreground, shape, parameters.degrees, parameters.scale)
        height, width = cutout.shape
        room_down, room_right = background.shape[0] - height, background.shape[1] - width
        if room_down < 0 or room_right < 0:
            return None
        top, left = int(rng.integers(room_down + 1)), int(rng.integers(room_right + 1))
        region = np.zeros(background.shape[:2], bool)
        region[top : top + height, left : left + width] = cutout
        if not _fits(region.sum() / region.size):
            return None
        if source is target and (region & shape).sum() > _LARGEST_OVERLAP * region.sum():
            return None
        forged = background.copy()
        forged[top : top + height, left : left + width][cutout] = patch[cutout]
        return forged, region

    def _save(
        self,
        item: int,
        target: Row,
        source: Row,
        parameters: Parameters,
        forged: Picture,
        region: Region,
    ) -> Row:
        prefix, kind = ("cm", Kind.COPY_MOVE)
        if self._how is Tampering.SPLICE:
            prefix, kind = ("sp", Kind.SPLICE)
        names = (shorten(Path(row.path).name, _LONGEST_NAME) for row in (target, source))
        stem = f"{item:06d}_{parameters.name(*names)}"
        mask = self._folder / f"{prefix}_masks" / f"{stem}.png"
        picture = self._folder / f"{prefix}_images" / f"{stem}.jpg"
        data = encode_jpeg(forged, parameters.quality)
        write(mask, encode_region(region))
        write(picture, data)
        return manifest.describe(
            picture,
            self._folder,
            kind,
            source_id=target.source_id,
            mask=mask,
            mask_type="segmentation",
            split=target.split,
            data=data,
        )


def transform(
    picture: Picture, region: Region, degrees: float, scale: float
) -> tuple[Picture, Region]:
    """Cut out a region, and rotate and scale it about its centre.

    Args:
        picture: (H, W, 3).
        region: (H, W), not empty.
        degrees: Counter-clockwise rotation.
        scale: Scale factor of the sides.

    Returns:
        Pixels (h, w, 3), bilinear, and the object's region (h, w), nearest, so with hard edges;
        both cropped to the object.
    """
    import cv2

    box = _bounding_box(region)
    patch, cutout = picture[box], region[box]
    if degrees == 0 and scale == 1:
        return patch, cutout
    height, width = cutout.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])  # multiplied by the scale
    size = (
        math.ceil(width * cosine + height * sine),
        math.ceil(width * sine + height * cosine),
    )
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    turned = cv2.warpAffine(
        patch, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    edges = cv2.warpAffine(cutout.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST) > 0
    box = _bounding_box(edges)
    return turned[box].astype(np.uint8), edges[box]


def _bounding_box(region: Region) -> tuple[slice, slice]:
    """Return the row and column slices of a non-empty region."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _fits(share: float) -> bool:
    return AREAS[0] <= share <= AREAS[1]
