"""Cropping all pictures to one size, so that size does not reveal the class."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import JsonValue

from training.data import manifest
from training.data.manifest import PictureUnreadableError, Row
from training.data.pixels import (
    encode_png,
    encode_region,
    read_picture,
    read_region,
    shorten,
    write,
)


class Cropper:
    """Crops the pictures of a manifest to their central square, lossless."""

    def __init__(self, file: Path, folder: Path, *, size: int) -> None:
        """Read the manifest.

        Args:
            file: Manifest of pictures of any kind.
            folder: Output folder (crops in `pictures`, region masks in `masks`).
            size: Side of the square, pixels; smaller pictures are skipped.
        """
        self._root = file.resolve().parent
        self._folder = folder
        self._size = size
        rows = list(manifest.read(file))
        self.rows = [row for row in rows if min(row.width, row.height) >= size]
        self.skipped = len(rows) - len(self.rows)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings that determine the pictures."""
        lines = "\n".join(row.model_dump_json() for row in self.rows)
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return {"tool": "crop", "pictures": digest, "size": self._size}

    def make(self, item: int) -> list[Row]:
        """Write the crop of picture number `item` and return its row.

        Raises:
            PictureUnreadableError: It or its mask cannot be decoded, or their sizes differ.
            OSError: A file cannot be opened or written.
        """
        row = self.rows[item]
        name = f"{item:06d}_{shorten(Path(row.path).stem)}.png"
        top, left = (row.height - self._size) // 2, (row.width - self._size) // 2
        box = slice(top, top + self._size), slice(left, left + self._size)
        mask = None
        if row.mask is not None:
            region = read_region(self._root / row.mask)
            if region.shape != (row.height, row.width):
                raise PictureUnreadableError(f"{row.mask}: not of the size of {row.path}")
            mask = self._folder / "masks" / name
            write(mask, encode_region(region[box]))
        file = self._folder / "pictures" / name
        data = encode_png(read_picture(self._root / row.path)[box])
        write(file, data)
        return [manifest.describe_version(row, file, self._folder, row.kind, mask=mask, data=data)]
