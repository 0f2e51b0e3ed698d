"""Blended pictures: original pixels pasted back outside the inpainted region."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from training.data import manifest
from training.data.journal import SkippedError
from training.data.labels import Kind
from training.data.manifest import Row
from training.data.originals import Originals
from training.data.pixels import encode_png, read_picture, read_region, shorten, write


def blend(
    original: NDArray[np.uint8], repainted: NDArray[np.uint8], region: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return inpainted pixels (H, W, 3) inside the region (H, W) and original pixels outside."""
    return np.where(region[:, :, None], repainted, original)


class Blender:
    """Blends the inpainted pictures of a manifest with the originals of the same source id."""

    def __init__(self, inpainted: Path, originals: Originals, folder: Path) -> None:
        """Pair inpainted pictures and originals.

        Args:
            inpainted: Manifest; rows of kind `inpaint` are blended.
            originals: Authentic pictures, including the sources.
            folder: Output folder (pictures in `blended`); masks are not copied.
        """
        self._root = inpainted.resolve().parent
        self._originals = originals
        self._by_source = {row.source_id: row for row in originals.rows}
        self._folder = folder
        self.rows = [row for row in manifest.read(inpainted) if row.kind is Kind.INPAINT]

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings that determine the pictures."""
        hashes = "\n".join(f"{row.sha256} {row.mask}" for row in self.rows)
        return {
            "tool": "blend",
            "inpainted": hashlib.sha256(hashes.encode()).hexdigest(),
            "originals": self._originals.digest,
        }

    def make(self, item: int) -> list[Row]:
        """Write the blended version of inpainted picture number `item`, as PNG.

        Raises:
            SkippedError: There is no original, or its size differs.
            PictureUnreadableError: The picture, its mask or its original cannot be decoded.
            OSError: A file cannot be opened or written.
        """
        row = self.rows[item]
        source = self._by_source.get(row.source_id)
        if source is None or row.mask is None:
            raise SkippedError(f"{row.path}: no original of source id {row.source_id}")
        mask = self._root / row.mask
        repainted, region = read_picture(self._root / row.path), read_region(mask)
        original = self._originals.read(source)
        if not repainted.shape[:2] == original.shape[:2] == region.shape:
            raise SkippedError(
                f"{row.path}: picture {repainted.shape[:2]}, mask {region.shape} and original "
                f"{original.shape[:2]} differ in size"
            )
        data = encode_png(blend(original, repainted, region))
        name = f"{item:06d}_{shorten(Path(row.path).stem)}.png"
        file = self._folder / "blended" / name
        write(file, data)
        return [
            manifest.describe_version(row, file, self._folder, Kind.BLENDED, mask=mask, data=data)
        ]
