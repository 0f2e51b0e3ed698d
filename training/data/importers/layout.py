"""What an importer says: which pictures a data set's layout names, and what they are.

A layout only names things; whether the files are there, can be read, are duplicates, and whether
their masks fit is found out in one place (`training.data.importers.reading`).
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
"""What data sets call their parts, lower case."""

MASKED = "with a mask"
"""Name, beside those of kinds and generators, under which pictures with a mask are counted."""


class LayoutError(UserError):
    """The folder does not have the layout of the data set."""


class Problem(StrEnum):
    """What can be wrong with a picture or a row of a table.

    It is left out unless stated otherwise.
    """

    MISSING = "missing"
    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable"
    NAME = "name not understood"
    MASK_SIZE = "mask of another size"
    """Kept, with the mask resized, where the data set is known for it."""
    MASK_POLARITY = "mask of odd polarity"
    """Left out if nothing or everything is marked; kept if more than half is."""
    MASK_TURN = "mask turned with its picture"
    """Kept. By its size alone the mask may lie as the picture is shown or as it is stored."""
    UNUSED = "not taken by the layout"
    """A row that the import does not want, or a picture that nothing of the layout names."""
    KIND = "kind guessed"
    """Kept."""
    SOURCE = "original guessed"
    """Kept."""
    GENERATOR = "generator guessed"
    """Kept."""
    SPLIT = "split not known"
    """Kept, without a split: a folder is called like one and may be a class."""


@dataclass(frozen=True, slots=True)
class Note:
    """A problem that the layout itself shows."""

    problem: Problem
    text: str
    file: Path | None = None
    """The picture that it is about, if it is about one that is there."""


@dataclass(frozen=True, slots=True)
class MaskRule:
    """How a data set draws its region masks."""

    channel: int | None = None
    """The channel of RGB that counts; None: the largest of the three."""
    threshold: int = 0
    """Values above it are marked."""
    black: bool = False
    """The unmarked side is the changed one."""
    resized: bool = False
    """Masks may have another size than their pictures."""

    def region(self, mask: Image.Image) -> NDArray[np.bool_]:
        """Where the picture was changed.

        Args:
            mask: as the data set stores it, any mode.

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
"""Anything that is not black is changed."""
WHITE = MaskRule(threshold=127)
"""White is changed; the threshold allows for lossy masks."""
BLACK = MaskRule(threshold=127, black=True)
"""Black is changed."""


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
        """The encoded picture.

        Raises:
            PictureUnreadableError: the cell is empty.
        """
        with _group_lock:
            value = _column(self.file, self.group, self.column)[self.row].as_py()
        data = value["bytes"] if isinstance(value, Mapping) else value
        if not data:
            place = f"row {self.row} of row group {self.group}"
            raise PictureUnreadableError(f"{self.file}: {self.column} of {place} is empty")
        return bytes(data)


_group_lock = Lock()


@lru_cache(maxsize=4)  # image and mask columns of the group in work and of the one before
def _column(file: Path, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        return table.read_row_group(group, columns=[column]).column(0)


@dataclass(frozen=True, slots=True)
class Item:
    """One picture that a layout names."""

    picture: Path | Cell
    kind: Kind
    source_id: str
    """The original; pictures of other data sets with the same original have the same."""
    key: str = ""
    """Path without suffix, unique in the data set, for a picture that has no file of its own."""
    mask: Path | Cell | None = None
    generator: str | None = None
    mask_type: str | None = None
    guidance: str | None = None
    split: Split | None = None
    group: str | None = None
    """What a sample is drawn from; None: the pictures of the same kind and generator."""
    guesses: tuple[tuple[Problem, str], ...] = ()
    """What the data set does not say for sure, and what was taken."""

    @property
    def name(self) -> str:
        """What the picture is called in reports."""
        if isinstance(self.picture, Path):
            return name_of(self.picture)
        return f"{name_of(self.picture.file)}: {self.key}"


@dataclass(frozen=True)
class Choices:
    """What only the user can say about a data set."""

    kind: Kind | None = None
    """Kind of the pictures with a mask, where the layout leaves it open; None: its default."""
    table: Path | None = None
    """The table to read, where the layout has one of any name."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our names of a table's columns to its own."""


@dataclass(frozen=True)
class Layout:
    """One data set layout that can be imported."""

    about: str
    """One line: what it is, what is marked in its masks."""
    items: Callable[[Path, Choices], Iterable[Item | Note]]
    """From the data set's folder, in a fixed order; raises LayoutError."""
    mask: MaskRule = NON_ZERO
    published: Mapping[str, int] = field(default_factory=dict)
    """Number of pictures by kind, generator or `MASKED`, as published."""


def pictures(folder: Path, *, deep: bool = False) -> list[Path]:
    """The picture files of a folder (and of all below it), in order of their paths."""
    return find(folder, deep=deep).pictures


def by_stem(folder: Path) -> dict[str, Path]:
    """The picture files of a folder by their names without suffix."""
    return {file.stem: file for file in pictures(folder)}


def subfolder(root: Path, *names: str) -> Path:
    """The first of the named folders that is there.

    Raises:
        LayoutError: none is.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise LayoutError(f"{root}: no folder {' or '.join(names)}")


def read_text(file: Path) -> str:
    """The text of a list, with or without a byte order mark.

    Bytes that are no UTF-8 stay what they are in names of files: they spoil their own row alone.

    Raises:
        LayoutError: it cannot be read.
    """
    try:
        data = file.read_bytes()
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{file}: {error}") from error
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def read_table(file: Path, delimiter: str = ",") -> csv.DictReader[str]:
    """The rows of a table whose first line names its columns.

    Raises:
        LayoutError: it cannot be read.
    """
    return csv.DictReader(io.StringIO(read_text(file), newline=""), delimiter=delimiter)


def cells(row: Mapping[str, str | None], *columns: str) -> list[str] | None:
    """The values of a row in some columns; None: one of them is empty or not there."""
    values = [(row.get(column) or "").strip() for column in columns]
    return values if all(values) else None


def listed(root: Path, name: str) -> Path:
    """A file that a list names, below `root` or absolute; backslashes may divide its folders."""
    file = root / name
    return root / slashed(name) if "\\" in name and not file.exists() else file


def slashed(name: str) -> str:
    """A name of a list with slashes between its folders."""
    return name.replace("\\", "/")


def coco_id(number: int | str) -> str:
    """Source id of a picture of COCO, the same for all data sets made from it."""
    return f"coco/{int(number):012d}"
