"""Format alignment (section 3.1 of the paper): lossless pictures become JPEG 96."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import JsonValue

from training.data import manifest
from training.data.manifest import Row
from training.data.pixels import Subsampling, encode_jpeg, read_picture, shorten, write


class Aligner:
    """Re-encodes pictures of a manifest as JPEG; other files are not copied."""

    def __init__(
        self,
        file: Path,
        folder: Path,
        *,
        everything: bool,
        quality: int,
        subsampling: Subsampling,
    ) -> None:
        """Read the manifest.

        Args:
            file: Manifest of pictures of any kind.
            folder: JPEGs go to `aligned` in it.
            everything: Re-encode JPEGs too, not only other formats.
            quality: JPEG quality, 1 to 100.
            subsampling: Chroma subsampling.
        """
        self._root = file.resolve().parent
        self._folder = folder
        self._everything = everything
        self._quality = quality
        self._subsampling: Subsampling = subsampling
        self.rows = list(manifest.read(file))

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings that determine the pictures."""
        lines = "\n".join(row.model_dump_json() for row in self.rows)
        return {
            "tool": "align",
            "pictures": hashlib.sha256(lines.encode()).hexdigest(),
            "everything": self._everything,
            "quality": self._quality,
            "subsampling": self._subsampling,
        }

    def make(self, item: int) -> list[Row]:
        """Re-encode picture number `item` if necessary, and return its row.

        Raises:
            PictureUnreadableError: It cannot be decoded.
            OSError: A file cannot be opened or written.
        """
        row = self.rows[item]
        picture = self._root / row.path
        mask = None if row.mask is None else self._root / row.mask
        if row.format == "JPEG" and not self._everything:
            file, data = picture, picture.read_bytes()
        else:
            file = self._folder / "aligned" / f"{item:06d}_{shorten(picture.stem)}.jpg"
            data = encode_jpeg(read_picture(picture), self._quality, self._subsampling)
            write(file, data)
        return [manifest.describe_version(row, file, self._folder, row.kind, mask=mask, data=data)]
