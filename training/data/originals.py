"""Authentic pictures as sources of forgeries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pictures.finding import LeftOut, find, name_of, reason_of
from training.data import manifest
from training.data.labels import Kind
from training.data.manifest import PictureUnreadableError, Row
from training.data.pixels import read_picture
from training.errors import UserError


class NoOriginalsError(UserError):
    """A manifest or folder contains no authentic picture."""


@dataclass(frozen=True)
class Originals:
    """Authentic pictures."""

    root: Path
    """Folder of the rows' paths."""
    rows: tuple[Row, ...]
    unreadable: tuple[str, ...] = ()
    """Reasons for unreadable files in a folder."""
    passed_over: tuple[LeftOut, ...] = ()
    """Files in the folder that are not pictures."""

    @property
    def digest(self) -> str:
        """Hash of the rows, in order."""
        lines = "\n".join(row.model_dump_json() for row in self.rows)
        return hashlib.sha256(lines.encode()).hexdigest()

    def read(self, row: Row) -> NDArray[np.uint8]:
        """Read the pixels (H, W, 3) of a picture.

        Raises:
            PictureUnreadableError: It cannot be decoded.
        """
        return read_picture(self.root / row.path)


def load(path: Path) -> Originals:
    """Load the authentic rows of a manifest, or all pictures of a folder as authentic.

    Raises:
        NoOriginalsError: There are none.
    """
    path = path.resolve()
    originals = _folder(path) if path.is_dir() else _manifest(path)
    if not originals.rows:
        raise NoOriginalsError(f"{path}: no authentic pictures")
    return originals


def _manifest(file: Path) -> Originals:
    rows = (row for row in manifest.read(file) if row.kind is Kind.AUTHENTIC)
    return Originals(file.parent, tuple(rows))


def _folder(folder: Path) -> Originals:
    found = find(folder)
    rows = []
    unreadable = [f"{name_of(one.path)}: {one.detail}" for one in found.failures]
    for file in found.pictures:
        source_id = file.relative_to(folder).with_suffix("").as_posix()
        try:
            rows.append(manifest.describe(file, folder, Kind.AUTHENTIC, source_id=source_id))
        except PictureUnreadableError as error:
            unreadable.append(str(error))
        except OSError as error:
            unreadable.append(f"{name_of(file)}: {reason_of(error)}")
    return Originals(folder, tuple(rows), tuple(unreadable), tuple(found.passed_over))
