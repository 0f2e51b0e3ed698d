"""Data sets of labelled crops: random for training, central for evaluation.

A training crop depends only on (seed, epoch, draw), not on the process. Decoding and central crops
use the functions of the service.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from model import views
from model.network import IGNORE
from pictures import decoding
from pictures.errors import PictureError
from pictures.findings import View
from training.config import ConfigError, LabelSettings, Settings
from training.data import augment, manifest
from training.data.augment import GRID, MARGIN, Augmentation
from training.data.labels import LABELS, Kind, Labels, MaskLabel
from training.errors import UserError

NO_ORIGINAL = -1
"""Value of `Pictures.originals` where there is none."""
_KINDS = tuple(Kind)
_REPLACEMENTS = 10  # attempts to replace an unreadable picture
_CROP_STREAM, _REPLACEMENT_STREAM = 1, 2  # random streams; training.fitting.sampling has 0
_READ_ERRORS = (PictureError, OSError)


class UnreadablePictureError(UserError):
    """A picture or its mask cannot be read; the message names the file."""


class Request(NamedTuple):
    """Request for a crop; both crops of a pair have the same `draw`."""

    epoch: int
    draw: int
    row: int
    """Row of `Pictures`."""


Box = tuple[float, float, float, float]
"""Left, top, right, bottom relative to the picture, 0 to 1."""


class Sample(NamedTuple):
    """One crop of side S with its labels."""

    tile: NDArray[np.uint8]
    """RGB pixels (S, S, 3)."""
    label: int
    """1: the picture or a part of it is AI-generated."""
    ai: NDArray[np.uint8]
    """Labels 0, 1 or IGNORE (S, S)."""
    manipulation: NDArray[np.uint8]
    """Labels 0, 1 or IGNORE (S, S)."""
    box: Box
    """Position of the crop in the picture."""
    mirrored: bool
    """Whether crop and box refer to the mirrored picture."""
    row: int
    """Row of `Pictures`."""
    path: str
    problems: list[str]
    """Unreadable pictures that were replaced by this one."""


class Cut(NamedTuple):
    """A crop of side S without labels; fields as in `Sample`."""

    tile: NDArray[np.uint8]
    region: NDArray[np.uint8]
    """Region mask (S, S), 0 or 1."""
    box: Box
    mirrored: bool = False


Batch = dict[str, Any]
"""Crops of side S, stacked: `tiles` (B, S, S, 3) uint8, `labels` (B,) float32, `ai_labels` and
`manipulation_labels` (B, S, S) uint8, `boxes` (B, 4) float32, and the lists `mirrored`, `rows`,
`paths` and `problems`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Rows of manifests as arrays: compact, and shared by loader processes."""

    roots: tuple[str, ...]
    """Folders of the manifests."""
    root: NDArray[np.int16]
    """Index of the folder of each row (N,)."""
    paths: NDArray[np.bytes_]
    """Paths of the pictures, UTF-8 (N,)."""
    masks: NDArray[np.bytes_]
    """Paths of their region masks, empty if there is none (N,)."""
    kinds: NDArray[np.uint8]
    """Position of the kind in `Kind` (N,)."""
    originals: NDArray[np.int64]
    """Row of the authentic picture of the same source id and size, or NO_ORIGINAL (N,)."""

    def __len__(self) -> int:
        return len(self.paths)

    def kind(self, row: int) -> Kind:
        """Return the kind of a row."""
        return _KINDS[int(self.kinds[row])]

    def of_kind(self, kind: Kind) -> NDArray[np.int64]:
        """Return the rows of one kind."""
        return np.flatnonzero(self.kinds == _KINDS.index(kind))

    def read(self, row: int, max_pixels: int) -> NDArray[np.uint8]:
        """Decode the picture of a row: RGB pixels (H, W, 3).

        Raises:
            PictureError: It cannot be read.
            OSError: The file is missing.
        """
        return decoding.decode(self.path(row).read_bytes(), max_pixels=max_pixels)

    def path(self, row: int) -> Path:
        """Return the path of the picture of a row."""
        return Path(self.roots[self.root[row]], self.paths[row].decode())

    def mask(self, row: int) -> Path:
        """Return the path of the region mask of a row that has one."""
        return Path(self.roots[self.root[row]], self.masks[row].decode())


def load_pictures(files: Iterable[str], split: str, kinds: Iterable[Kind]) -> Pictures:
    """Read the rows of one split; rows without a split are held out.

    Args:
        files: Manifests.
        split: `train`, `validation` or `test`.
        kinds: Kinds to take.

    Raises:
        ConfigError: A manifest cannot be read, or has no splits.
    """
    wanted = set(kinds)
    roots, paths, masks, root, kind, keys = [], [], [], [], [], []
    for number, file in enumerate(map(Path, files)):
        roots.append(str(file.parent))
        splits = set()
        try:
            for row in manifest.read(file):
                splits.add(row.split)
                if row.split != split or row.kind not in wanted:
                    continue
                paths.append(row.path.encode())
                masks.append((row.mask or "").encode())
                root.append(number)
                kind.append(_KINDS.index(row.kind))
                keys.append((number, row.source_id, row.width, row.height))
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}") from error
        if splits == {None}:
            raise ConfigError(f"{file}: no row has a split; run `gamma-train data split` first")
    authentic = _KINDS.index(Kind.AUTHENTIC)
    by_key = {key: i for i, key in reversed(list(enumerate(keys))) if kind[i] == authentic}
    originals = [
        NO_ORIGINAL if kind[i] == authentic else by_key.get(key, NO_ORIGINAL)
        for i, key in enumerate(keys)
    ]
    return Pictures(
        tuple(roots),
        np.array(root, np.int16),
        np.array(paths, np.bytes_),
        np.array(masks, np.bytes_),
        np.array(kind, np.uint8),
        np.array(originals, np.int64),
    )


def labels_of(kind: Kind, policy: LabelSettings) -> Labels:
    """Return the labels of a kind: Table 1, with the class policy of Table 5."""
    classes = {Kind.COPY_MOVE: policy.copy_move, Kind.SPLICE: policy.splice}
    labels = LABELS[kind]
    return dataclasses.replace(labels, ai_generated=bool(classes.get(kind, labels.ai_generated)))


class _Crops(ABC):
    """Base of both data sets: reads rows and replaces unreadable ones."""

    def __init__(self, pictures: Pictures, settings: Settings) -> None:
        self._pictures = pictures
        self._settings = settings

    def __len__(self) -> int:
        return len(self._pictures)

    @abstractmethod
    def _cut(self, request: Request) -> Cut:
        """Cut one crop."""

    def _sample(self, request: Request) -> Sample:
        problems: list[str] = []
        for row in self._candidates(request):
            path = self._pictures.path(row)
            try:
                cut = self._cut(request._replace(row=row))
            except _READ_ERRORS as error:
                problems.append(f"{path}: {error}")
                continue
            labels = labels_of(self._pictures.kind(row), self._settings.labels)
            return Sample(
                cut.tile,
                int(labels.ai_generated),
                _label_map(labels.ai, cut.region),
                _label_map(labels.manipulation, cut.region),
                cut.box,
                cut.mirrored,
                row,
                str(path),
                problems,
            )
        raise UnreadablePictureError(f"too many unreadable pictures: {'; '.join(problems)}")

    def _candidates(self, request: Request) -> Iterator[int]:
        """Yield the requested row, then others of its kind in a fixed order."""
        yield request.row
        alike = self._pictures.of_kind(self._pictures.kind(request.row))
        seed = self._settings.train.seed
        rng = np.random.default_rng([_REPLACEMENT_STREAM, seed, *request])
        yield from rng.permutation(alike[alike != request.row])[:_REPLACEMENTS].tolist()

    def _read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return pixels (H, W, 3) and the region mask (H, W), 0 or 1; 0 where there is none.

        Raises:
            PictureError: The picture or its mask cannot be read, or their sizes differ.
            OSError: A file is missing.
        """
        limit = self._settings.data.max_pixels
        picture = self._pictures.read(row, limit)
        if not LABELS[self._pictures.kind(row)].needs_region:
            return picture, np.zeros(picture.shape[:2], np.uint8)
        file = self._pictures.mask(row)
        try:
            mask = decoding.decode(file.read_bytes(), max_pixels=limit).any(axis=2)
        except PictureError as error:
            raise PictureError(f"mask {file}: {error}") from error
        if mask.shape != picture.shape[:2]:
            raise PictureError(
                f"mask {file}: {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"the picture has {picture.shape[1]} x {picture.shape[0]}"
            )
        return picture, np.asarray(mask, np.uint8)


class TrainingCrops(_Crops, Dataset[Sample]):
    """Random, augmented crops, indexed by `Request`."""

    def __getitem__(self, request: Request) -> Sample:
        return self._sample(request)

    def _cut(self, request: Request) -> Cut:
        settings = self._settings
        entropy = [_CROP_STREAM, settings.train.seed, request.epoch, request.draw]
        rng = np.random.default_rng(entropy)
        augmentation = augment.draw(settings.augment, rng)
        picture, region = augment.apply_history(*self._read(request.row), augmentation)
        size, padding = settings.model.crop_size, settings.data.padding
        if settings.data.small_pictures == "replicate":
            missing = [(0, max(0, size - length)) for length in region.shape]
            picture = np.pad(picture, [*missing, (0, 0)], mode="edge")
            region = np.pad(region, missing, mode="edge")
        side = min(size, *region.shape)
        top, left = (
            int(rng.integers(-padding, length + padding - side + 1)) for length in region.shape
        )
        tile = cut_augmented(picture, top, left, side, augmentation)
        tile = views.cut(tile, View.CENTER, size, 1).tiles[0].numpy()
        mask = _resize_mask(_cut_padded(region, top, left, side), size)
        box = _shares((left, top, left + side, top + side), region.shape)
        if augmentation.flip:
            tile, mask = tile[:, ::-1].copy(), mask[:, ::-1].copy()
            box = (1 - box[2], box[1], 1 - box[0], box[3])
        return Cut(tile, mask, box, augmentation.flip)


class EvaluationCrops(_Crops, Dataset[Sample]):
    """Central crops as in the service, indexed by row."""

    def __getitem__(self, index: int) -> Sample:
        return self._sample(Request(epoch=0, draw=index, row=index))

    def _cut(self, request: Request) -> Cut:
        picture, region = self._read(request.row)
        size = self._settings.model.crop_size
        crops = views.cut(picture, View.CENTER, size, 1)
        left, top, right, bottom = crops.layout.box
        return Cut(
            crops.tiles[0].numpy(),
            _resize_mask(region[top:bottom, left:right], size),
            _shares(crops.layout.box, region.shape),
        )


def cut_augmented(
    picture: NDArray[np.uint8], top: int, left: int, side: int, augmentation: Augmentation
) -> NDArray[np.uint8]:
    """Cut a square out of the augmented picture; only the needed window is augmented.

    Args:
        picture: RGB pixels (H, W, 3).
        top: First row; may be outside the picture (black), like `left`.
        left: First column.
        side: Side of the square, pixels.
        augmentation: Sampled augmentation; the flip is not applied.

    Returns:
        Pixels (side, side, 3).
    """
    first = [max(0, start - MARGIN) // GRID * GRID for start in (top, left)]
    window = picture[first[0] : top + side + MARGIN, first[1] : left + side + MARGIN]
    window = augment.apply_photometric(np.ascontiguousarray(window), augmentation)
    return _cut_padded(window, top - first[0], left - first[1], side)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples to a batch."""
    return {
        "tiles": torch.from_numpy(np.stack([s.tile for s in samples])),
        "labels": torch.tensor([float(s.label) for s in samples]),
        "ai_labels": torch.from_numpy(np.stack([s.ai for s in samples])),
        "manipulation_labels": torch.from_numpy(np.stack([s.manipulation for s in samples])),
        "boxes": torch.tensor([s.box for s in samples]),
        "mirrored": [s.mirrored for s in samples],
        "rows": [s.row for s in samples],
        "paths": [s.path for s in samples],
        "problems": [problem for s in samples for problem in s.problems],
    }


def _shares(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> Box:
    """Convert a box in pixels of a picture (H, W) to relative coordinates in [0, 1]."""
    height, width = shape
    left, top, right, bottom = (
        min(1.0, max(0.0, value / length))
        for value, length in zip(box, (width, height, width, height), strict=True)
    )
    return left, top, right, bottom


def _cut_padded(values: NDArray[np.uint8], top: int, left: int, side: int) -> NDArray[np.uint8]:
    """Cut a square out of (H, W, ...), with zeros outside."""
    square = np.zeros((side, side, *values.shape[2:]), np.uint8)
    part = values[max(0, top) : top + side, max(0, left) : left + side]
    row, column = max(0, -top), max(0, -left)
    square[row : row + part.shape[0], column : column + part.shape[1]] = part
    return square


def _resize_mask(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if mask.shape == (size, size):
        return np.ascontiguousarray(mask)
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


def _label_map(label: MaskLabel, region: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if label is MaskLabel.REGION:
        return region
    value = {MaskLabel.NONE: 0, MaskLabel.ALL: 1, MaskLabel.UNSUPERVISED: IGNORE}[label]
    return np.full_like(region, value)
