"""Audit of data sets before training."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures import decoding
from pictures.errors import PictureError
from pictures.origin import Says
from training.data import provenance_counts
from training.data.labels import LABELS
from training.data.manifest import MAX_PIXELS, Row
from training.data.separation import Separation, separations
from training.data.workers import in_order

_BITS = 64
_BANDS = 4
_CERTAIN = 2  # standard errors above chance for a significant separation
_DISTANCE = _BANDS - 1  # hashes that differ in fewer bits than there are bands share a band


@dataclass(frozen=True)
class Picture:
    """A row and facts from its file."""

    file: Path
    row: Row
    trouble: str | None = None
    """Why the file cannot be used or differs from the row."""
    perceptual_hash: int | None = None
    """64-bit hash; similar pictures differ in few bits."""
    says: Says | None = None
    """What the file states about its origin."""


@dataclass
class Audit:
    """Result of an audit."""

    pictures: list[Picture]
    separations: list[Separation]
    limit: float
    """Maximum balanced accuracy of one attribute."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """Problems that would bias training, with examples."""
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """Remarks to check, with examples."""

    @property
    def leaks(self) -> list[Separation]:
        """Attributes that separate the classes significantly better than `limit`."""
        return [
            s
            for s in self.separations
            if s.balanced_accuracy > max(self.limit, 0.5 + _CERTAIN * s.standard_error)
        ]

    @property
    def passed(self) -> bool:
        """Whether the data is suitable for training."""
        return not self.leaks and not self.problems


def inspect(
    rows: Sequence[tuple[Path, Row]], *, open_files: bool, workers: int
) -> Iterator[Picture]:
    """Yield the rows in order, with facts from their files.

    Args:
        rows: Folder of the paths and row, for each picture.
        open_files: Read and decode every picture; otherwise trust the rows.
        workers: Number of threads.
    """
    if open_files:
        return in_order(lambda item: _open(*item), rows, workers)
    return (Picture(root / row.path, row) for root, row in rows)


def audit(found: Sequence[Picture], limit: float) -> Audit:
    """Audit pictures that are used together.

    Args:
        found: Result of `inspect`.
        limit: Maximum balanced accuracy of one attribute, 0.5 = chance.
    """
    result = Audit(list(found), separations([picture.row for picture in found]), limit)
    _note(result.problems, "unusable files", [p.trouble for p in found if p.trouble])
    by_source = _groups(found, lambda p: p.row.source_id)
    _note(
        result.problems,
        "originals with versions in several splits",
        [f"{_splits(group)}: {_paths(group)}" for group in by_source if len(_splits(group)) > 1],
    )
    for group in _groups(found, lambda p: p.row.sha256):
        place = [_paths(group)]
        if len({LABELS[p.row.kind] for p in group}) > 1:
            _note(result.problems, "identical files with different labels", place)
        elif len(_splits(group)) > 1:
            _note(result.problems, "identical files in several splits", place)
        else:
            _note(result.remarks, "identical files", place)
    for group in _look_alikes(found):
        name = "pictures of different originals that look alike"
        if len(_splits(group)) > 1:
            name += ", in several splits"
        _note(result.remarks, name, [_paths(group)])
    for picture in found:
        if picture.says is not None:
            label = "AI-generated" if LABELS[picture.row.kind].ai_generated else "other"
            name = f"{label} pictures whose files say `{picture.says}`"
            _note(result.remarks, name, [str(picture.file)])
    unsplit = [str(p.file) for p in found if p.row.split is None]
    _note(result.remarks, "pictures without a split", unsplit)
    return result


def _open(root: Path, row: Row) -> Picture:
    file = root / row.path
    try:
        data = file.read_bytes()
        pixels = decoding.decode(data, max_pixels=MAX_PIXELS)
    except (OSError, PictureError) as error:
        return Picture(file, row, trouble=f"{file}: {error}")
    if hashlib.sha256(data).hexdigest() != row.sha256:
        return Picture(file, row, trouble=f"{file}: changed since the manifest was written")
    if row.mask is not None and not (root / row.mask).is_file():
        return Picture(file, row, trouble=f"{root / row.mask}: no such mask")
    stated = provenance_counts.says(data, pixels)
    return Picture(file, row, perceptual_hash=_perceptual_hash(pixels), says=stated)


def _perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    import imagehash

    return int(str(imagehash.phash(Image.fromarray(pixels))), 16)


def _groups(
    found: Sequence[Picture], key: Callable[[Picture], Hashable]
) -> Iterator[list[Picture]]:
    """Yield groups of pictures with the same key."""
    groups: dict[Hashable, list[Picture]] = defaultdict(list)
    for picture in found:
        groups[key(picture)].append(picture)
    return (group for group in groups.values() if len(group) > 1)


def _look_alikes(found: Sequence[Picture]) -> Iterator[list[Picture]]:
    """Yield groups of pictures of different originals with connected similar hashes."""
    hashed = [p for p in found if p.perceptual_hash is not None]
    if not hashed:
        return
    hashes = np.array([p.perceptual_hash for p in hashed], np.uint64)
    values, positions = np.unique(hashes, return_inverse=True)
    components = connect(values)[positions]
    groups: dict[int, list[Picture]] = defaultdict(list)
    for picture, component in zip(hashed, components, strict=True):
        groups[int(component)].append(picture)
    for group in groups.values():
        if len({p.row.source_id for p in group}) > 1 and len({p.row.sha256 for p in group}) > 1:
            yield group


def connect(values: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Find connected components of 64-bit hashes that differ in at most 3 bits.

    Such hashes agree in at least one of four bands of 16 bits, so only those are compared.

    Args:
        values: Distinct hashes (N,).

    Returns:
        Component of each hash (N,).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [np.empty((0, 2), np.int64)]
    for band in range(_BANDS):
        bits = _BITS // _BANDS
        keys = (values >> np.uint64(band * bits)) & np.uint64(2**bits - 1)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, starts):
            for i, first in enumerate(bucket[:-1]):
                others = bucket[i + 1 :]
                near = others[np.bitwise_count(values[first] ^ values[others]) <= _DISTANCE]
                pairs.append(np.stack([np.full_like(near, first), near], axis=1))
    edges = np.concatenate(pairs)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (len(values),) * 2)
    chains: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return chains


def _splits(group: Sequence[Picture]) -> list[str]:
    return sorted({p.row.split for p in group if p.row.split is not None})


def _paths(group: Sequence[Picture]) -> str:
    shown = ", ".join(str(p.file) for p in group[:3])
    return shown + (f" and {len(group) - 3} more" if len(group) > 3 else "")


def _note(notes: dict[str, list[str]], name: str, places: Sequence[str]) -> None:
    if places:
        notes.setdefault(name, []).extend(places)
