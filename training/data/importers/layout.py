"""Interface of importers: the pictures that a data set's layout lists, with their labels.

A layout only lists pictures. `training.data.importers.reading` checks whether files exist, are
readable or duplicates, and whether masks fit.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures.finding import find, name_of
from training.data.labels import Kind
from training.data.manifest import PictureUnreadableError, Split
from training.errors import UserError

SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of splits in data sets, lower case."""

MASKED = "with a mask"
"""Counter name for pictures with a mask, in addition to kinds and generators."""


class LayoutError(UserError):
    """The folder does not have the layout of the data set."""


class Problem(StrEnum):
    """Problem of a picture or table row.

    The picture is left out unless stated otherwise.
    """

    MISSING = "missing"
    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable"
    CONTENT = "another file than the reviewed one"
    UNSURE = "reviewed as unsure"
    DISAGREEMENT = "reviewers disagree"
    NAME = "name not understood"
    MASK_SIZE = "mask of another size"
    """Kept with a resized mask if this is known for the data set."""
    MASK_POLARITY = "mask of odd polarity"
    """Left out if nothing or everything is marked; kept if more than half is marked."""
    MASK_TURN = "mask turned with its picture"
    """Kept. The mask is assumed to have the orientation of the stored picture."""
    UNUSED = "not taken by the layout"
    """A row that is not imported, or a picture that the layout does not list."""
    KIND = "kind guessed"
    """Kept."""
    SOURCE = "original guessed"
    """Kept."""
    GENERATOR = "generator guessed"
    """Kept."""
    SPLIT = "split not known"
    """Kept without a split: a folder has the name of a split but may be a class."""


@dataclass(frozen=True, slots=True)
class Note:
    """A problem found by the layout."""

    problem: Problem
    text: str
    file: Path | None = None
    """The picture, if it exists."""


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Convention of a data set's region masks."""

    channel: int | None = None
    """RGB channel to use; None: maximum of the three."""
    threshold: int = 0
    """Values above it are marked."""
    black: bool = False
    """Whether unmarked pixels are the altered ones."""
    resized: bool = False
    """Whether masks may differ in size from their pictures."""

    def region(self, mask: Image.Image) -> NDArray[np.bool_]:
        """Return the altered region.

        Args:
            mask: Stored mask, any mode.

        Returns:
            Region (H, W).
        """
        if mask.mode.startswith(("I", "F")):  # Pillow would clip them
            values = np.asarray(mask)
        else:
            colours = np.asarray(mask.convert("RGB"))
            values = colours.max(2) if self.channel is None else colours[:, :, self.channel]
        marked: NDArray[np.bool_] = values > self.threshold
        return ~marked if self.black else marked


NON_ZERO = MaskRule()
"""Altered where not black."""
WHITE = MaskRule(threshold=127)
"""Altered where white; the threshold allows lossy masks."""
BLACK = MaskRule(threshold=127, black=True)
"""Altered where black."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An encoded picture in a Parquet file, as bytes or as a struct with `bytes`."""

    file: Path
    column: str
    group: int
    """Row group."""
    row: int
    """Row in that group."""

    def load(self) -> bytes:
        """Return the encoded picture.

        Raises:
            PictureUnreadableError: The cell is empty.
        """
        with _group_lock:
            value = _column(self.file, self.group, self.column)[self.row].as_py()
        data = value["bytes"] if isinstance(value, Mapping) else value
        if not data:
            place = f"row {self.row} of row group {self.group}"
            raise PictureUnreadableError(f"{self.file}: {self.column} of {place} is empty")
        return bytes(data)


_group_lock = Lock()


@lru_cache(maxsize=4)  # image and mask columns of the current and the previous group
def _column(file: Path, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        return table.read_row_group(group, columns=[column]).column(0)


@dataclass(frozen=True, slots=True)
class Item:
    """A picture listed by a layout."""

    picture: Path | Cell
    kind: Kind
    source_id: str
    """Id of the original, the same in all data sets."""
    key: str = ""
    """Unique path without suffix, for a picture that is not a file."""
    mask: Path | Cell | None = None
    generator: str | None = None
    mask_type: str | None = None
    guidance: str | None = None
    split: Split | None = None
    group: str | None = None
    """Group for sampling; None: kind and generator."""
    guesses: tuple[tuple[Problem, str], ...] = ()
    """Facts that the data set does not state, with the guessed values."""

    @property
    def name(self) -> str:
        """Name of the picture in reports."""
        if isinstance(self.picture, Path):
            return name_of(self.picture)
        return f"{name_of(self.picture.file)}: {self.key}"


@dataclass(frozen=True)
class Choices:
    """Facts about a data set from the user."""

    kind: Kind | None = None
    """Kind of pictures with a mask, if the layout does not define it; None: default."""
    table: Path | None = None
    """Table to read, if the layout has no fixed name for it."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column names of the table by our field names."""


@dataclass(frozen=True)
class Layout:
    """An importable data set layout."""

    about: str
    """One line: description and mask convention."""
    items: Callable[[Path, Choices], Iterable[Item | Note]]
    """Lists the pictures of the data set's folder in a fixed order; may raise LayoutError."""
    mask: MaskRule = NON_ZERO
    published: Mapping[str, int] = field(default_factory=dict)
    """Published number of pictures by kind, generator or `MASKED`."""


def pictures(folder: Path, *, deep: bool = False) -> list[Path]:
    """Return the picture files of a folder (`deep`: recursively), sorted by path."""
    return find(folder, deep=deep).pictures


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the picture files of a folder by stem."""
    return {file.stem: file for file in pictures(folder)}


def subfolder(root: Path, *names: str) -> Path:
    """Return the first of the named folders that exists.

    Raises:
        LayoutError: None exists.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise LayoutError(f"{root}: no folder {' or '.join(names)}")


def read_text(file: Path) -> str:
    """Read a text file, with or without a byte order mark.

    Invalid UTF-8 is kept as surrogates, so that it affects only its own row.

    Raises:
        LayoutError: It cannot be read.
    """
    try:
        data = file.read_bytes()
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{file}: {error}") from error
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def read_table(file: Path, delimiter: str = ",") -> csv.DictReader[str]:
    """Read a table with a header line.

    Raises:
        LayoutError: It cannot be read.
    """
    return csv.DictReader(io.StringIO(read_text(file), newline=""), delimiter=delimiter)


def cells(row: Mapping[str, str | None], *columns: str) -> list[str] | None:
    """Return the values of some columns; None if one is empty or missing."""
    values = [(row.get(column) or "").strip() for column in columns]
    return values if all(values) else None


def listed(root: Path, name: str) -> Path:
    """Return the path of a listed file, relative to `root` or absolute, slashes or backslashes."""
    file = root / name
    return root / slashed(name) if "\\" in name and not file.exists() else file


def slashed(name: str) -> str:
    """Replace backslashes by slashes."""
    return name.replace("\\", "/")


def coco_id(number: int | str) -> str:
    """Return the source id of a COCO picture, the same for all data sets made from it."""
    return f"coco/{int(number):012d}"
