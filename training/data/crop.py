"""One size for all pictures, so that size cannot tell the classes apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import JsonValue

from training.data import manifest
from training.data.manifest import Row
from training.data.pixels import encode_png, encode_region, read_picture, read_region, write


class Cropper:
    """Cuts the central square out of the pictures of a manifest, lossless."""

    def __init__(self, file: Path, folder: Path, *, size: int) -> None:
        """Read the manifest.

        Args:
            file: manifest of pictures of any kind.
            folder: crops go to `pictures` in it, their region masks to `masks`.
            size: side of the square, pixels; pictures that are smaller are passed over.
        """
        self._root = file.resolve().parent
        self._folder = folder
        self._size = size
        rows = list(manifest.read(file))
        self.rows = [row for row in rows if min(row.width, row.height) >= size]
        self.passed_over = len(rows) - len(self.rows)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What the pictures depend on."""
        lines = "\n".join(row.model_dump_json() for row in self.rows)
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return {"tool": "crop", "pictures": digest, "size": self._size}

    def make(self, item: int) -> list[Row]:
        """The row of the crop of picture number `item`.

        Raises:
            PictureUnreadableError: it or its mask cannot be decoded.
            OSError: a file cannot be opened or written.
        """
        row = self.rows[item]
        name = f"{item:06d}_{Path(row.path).stem}.png"
        top, left = (row.height - self._size) // 2, (row.width - self._size) // 2
        box = slice(top, top + self._size), slice(left, left + self._size)
        mask = None
        if row.mask is not None:
            mask = self._folder / "masks" / name
            write(mask, encode_region(read_region(self._root / row.mask)[box]))
        file = self._folder / "pictures" / name
        data = encode_png(read_picture(self._root / row.path)[box])
        write(file, data)
        return [manifest.describe_version(row, file, self._folder, row.kind, mask=mask, data=data)]
