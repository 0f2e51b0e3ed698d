"""Object shapes from COCO annotations or object maps."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pictures.finding import LeftOut, find
from training.data.manifest import Row
from training.data.pixels import read_picture
from training.errors import UserError


class ObjectsError(UserError):
    """Object annotations cannot be used; the message names the file."""


@dataclass(frozen=True, eq=False)
class Shape:
    """Shape of an object."""

    region: NDArray[np.bool_]
    """Pixels of the object (H, W), at the picture's size."""
    name: str | None
    """Category, if known."""


class Objects(Protocol):
    """Source of object shapes for pictures."""

    left_out: list[LeftOut]
    """Files that could not be used."""

    def knows(self, row: Row) -> bool:
        """Return whether objects of a picture may be known."""

    def of(self, row: Row) -> list[Shape]:
        """Return the objects of a known picture, in a fixed order."""


class CocoObjects:
    """Objects from COCO's `instances_*.json`, by file name, without crowds."""

    def __init__(self, file: Path) -> None:
        """Read the annotations.

        Raises:
            ObjectsError: The file is not in COCO's format.
        """
        self.left_out: list[LeftOut] = []
        try:
            content = json.loads(file.read_bytes())
            self._names = {c["id"]: str(c["name"]) for c in content["categories"]}
            images = {i["id"]: i for i in content["images"]}
            self._annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
            self._sizes: dict[str, tuple[int, int]] = {}
            for annotation in content["annotations"]:
                image = images[annotation["image_id"]]
                name = Path(image["file_name"].replace("\\", "/")).name
                self._sizes[name] = (image["height"], image["width"])
                if not annotation.get("iscrowd"):
                    self._annotations[name].append(annotation)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ObjectsError(f"{file}: not COCO instance annotations: {error!r}") from error

    def knows(self, row: Row) -> bool:
        """Return whether a picture has an annotated object."""
        return Path(row.path).name in self._annotations

    def of(self, row: Row) -> list[Shape]:
        """Return the objects of a picture, in the order of the file."""
        name = Path(row.path).name
        height, width = self._sizes[name]
        return [
            Shape(_decode(a["segmentation"], height, width), self._names[a["category_id"]])
            for a in self._annotations[name]
        ]


class MapObjects:
    """Objects from a folder of object maps: PNGs with one colour per class, black = background.

    A map has the stem of its picture. Each connected area of a class is an object, so a black and
    white mask is a valid map.
    """

    def __init__(self, folder: Path) -> None:
        """List the maps.

        Raises:
            ObjectsError: There are no maps, or two for one stem.
        """
        self._files: dict[str, Path] = {}
        found = find(folder)
        self.left_out = found.left_out
        for file in found.pictures:
            if file.suffix.lower() != ".png":
                continue
            if file.stem in self._files:
                raise ObjectsError(
                    f"two object maps for one stem: {self._files[file.stem]}, {file}"
                )
            self._files[file.stem] = file
        if not self._files:
            raise ObjectsError(f"{folder}: no object maps (*.png)")

    def knows(self, row: Row) -> bool:
        """Return whether a picture has a map."""
        return Path(row.path).stem in self._files

    def of(self, row: Row) -> list[Shape]:
        """Return the objects of a picture, by colour, then from top to bottom."""
        import cv2

        colours = read_picture(self._files[Path(row.path).stem]).astype(np.int32)  # (H, W, 3)
        classes = colours @ np.array([1 << 16, 1 << 8, 1], np.int32)  # (H, W)
        shapes = []
        for value in np.unique(classes[classes > 0]):
            count, areas = cv2.connectedComponents((classes == value).astype(np.uint8))
            shapes += [Shape(areas == area, None) for area in range(1, count)]
        return shapes


def load(path: Path) -> Objects:
    """Load COCO's JSON or a folder of object maps.

    Raises:
        ObjectsError: They cannot be used.
    """
    return MapObjects(path) if path.is_dir() else CocoObjects(path)


def _decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Decode COCO's polygons or run lengths to a region (H, W)."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = coco_mask.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    region: NDArray[np.bool_] = coco_mask.decode(runs).astype(bool)
    return region
