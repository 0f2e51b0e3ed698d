"""Copy-move and splicing forgeries, with TampCOCO's parameters.

Kwon et al. 2022 published pictures without the code that made them; quality, rotation and scale
are read off their names (`{quality}_{target}_{source}[_RT{degrees}][_RS{scale}].jpg`), and edges
are hard. Where their objects lie and how large they are is our choice, stated below.
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
from training.data.pixels import encode_jpeg, encode_region, write

QUALITIES = (60, 100)
ROTATED = 0.30
ROTATION = 45  # degrees, to either side
SCALED = 0.29
SCALES = (0.75, 1.25)
AREAS = (0.01, 0.5)
"""Smallest and largest pasted object, as a part of the picture (our choice)."""
_LARGEST_OVERLAP = 0.5  # of a copy with the object it was copied from (our choice)
_ATTEMPTS = 30  # to find an object and a place that fit

Picture = NDArray[np.uint8]  # (H, W, 3)
Region = NDArray[np.bool_]  # (H, W)


class Tampering(StrEnum):
    """Where the pasted object comes from."""

    COPY_MOVE = "copy-move"
    """The same picture."""
    SPLICE = "splice"
    """Another picture."""


@dataclass(frozen=True)
class Parameters:
    """How a forgery is made."""

    quality: int
    """Of the JPEG, 60 to 100."""
    degrees: int
    """Rotation, -45 to 45; 0: none."""
    scale: float
    """0.75 to 1.25; 1: none."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Parameters:
        """Draw each independently of the others."""
        rotated, scaled = rng.random() < ROTATED, rng.random() < SCALED
        return cls(
            quality=int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)),
            degrees=int(rng.integers(-ROTATION, ROTATION + 1)) if rotated else 0,
            scale=round(float(rng.uniform(*SCALES)), 2) if scaled else 1.0,
        )

    def name(self, target: str, source: str) -> str:
        """TampCOCO's name of such a forgery, without its suffix."""
        turned = f"_RT{self.degrees}" if self.degrees else ""
        resized = f"_RS{self.scale}" if self.scale != 1 else ""
        return f"{self.quality}_{target}_{source}{turned}{resized}"


class Forger:
    """Makes forgeries, each from its number and the seed alone."""

    def __init__(
        self, how: Tampering, originals: Originals, objects: Objects, folder: Path, seed: int
    ) -> None:
        """Prepare.

        Args:
            how: copy-move or splice.
            originals: targets and sources; both of a splice are of one split.
            objects: what can be pasted.
            folder: the pictures and masks go to `{cm,sp}_images` and `{cm,sp}_masks` in it.
            seed: with the number of a forgery, decides all of it.

        Raises:
            ObjectsError: no picture has an object that is known.
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
            raise ObjectsError("the object annotations know none of the pictures")

    @property
    def pictures(self) -> int:
        """Number of pictures that can be forged."""
        return len(self._targets)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What the forgeries depend on."""
        return {
            "tool": f"tamper {self._how}",
            "seed": self._seed,
            "pictures": self._originals.digest,
        }

    def make(self, item: int) -> list[Row]:
        """Write forgery number `item` and its mask.

        Raises:
            SkippedError: no object was found that fits.
            OSError: a file cannot be written.
        """
        rng = np.random.default_rng((self._seed, item))
        parameters = Parameters.draw(rng)
        trouble = "no object is of a size that fits"
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
        raise SkippedError(f"given up after {_ATTEMPTS} attempts: {trouble}")

    def _paste(
        self, target: Row, source: Row, parameters: Parameters, rng: np.random.Generator
    ) -> tuple[Picture, Region] | None:
        """The target with an object of the source on it, and where; None if it does not fit."""
        background = self._originals.read(target)
        foreground = background if source is target else self._originals.read(source)
        shapes = self._objects.of(source)
        if not shapes:
            return None
        shape = shapes[rng.integers(len(shapes))].region
        if shape.shape != foreground.shape[:2]:
            raise PictureUnreadableError(f"{source.path}: its objects are of another size")
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
        stem = f"{item:06d}_{parameters.name(Path(target.path).name, Path(source.path).name)}"
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
    """Cut out a region and turn and resize it about its centre.

    Args:
        picture: (H, W, 3).
        region: (H, W), not empty.
        degrees: counter-clockwise.
        scale: of the sides.

    Returns:
        Pixels (h, w, 3), bilinear, and which of them belong to the object, (h, w), nearest, so
        with hard edges; both cut to the object.
    """
    import cv2

    box = _bounding_box(region)
    patch, cutout = picture[box], region[box]
    if degrees == 0 and scale == 1:
        return patch, cutout
    height, width = cutout.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])  # times the scale
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
    """The rows and columns of a region that is not empty."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _fits(share: float) -> bool:
    return AREAS[0] <= share <= AREAS[1]
