"""Small trees in the layouts of data sets, and their imports."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import encode, photo
from training.data.importers import LAYOUTS
from training.data.importers.layout import Problem
from training.data.importers.reading import Import, Report
from training.data.labels import LABELS, Kind
from training.data.manifest import Row

WIDTH, HEIGHT = 48, 32
REGION = np.zeros((HEIGHT, WIDTH), bool)
REGION[4:14, 8:28] = True


def picture(seed: int, image_format: str = "JPEG") -> bytes:
    return encode(photo(WIDTH, HEIGHT, seed), image_format)


def drawn(region: np.ndarray, image_format: str = "PNG", *, black: bool = False) -> bytes:
    """A mask as data sets store it: white (or black) is changed."""
    return encode(Image.fromarray(np.where(region ^ black, 255, 0).astype(np.uint8)), image_format)


def plant(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


class Imported:
    """Result of an import."""

    def __init__(self, name: str, root: Path, **options: Any) -> None:
        manifest = root.parent / "out" / "m.jsonl"
        manifest.parent.mkdir(exist_ok=True)
        reading = Import(LAYOUTS[name], root, manifest, **options)
        self.folder = manifest.parent
        self.rows: list[Row] = list(reading.rows())
        self.report: Report = reading.report
        self.by_name = {Path(row.path).stem: row for row in self.rows}
        for row in self.rows:
            assert (self.folder / row.path).is_file()
            assert LABELS[row.kind].needs_region == (row.mask is not None)

    @property
    def kinds(self) -> dict[Kind, int]:
        return dict(Counter(row.kind for row in self.rows))

    def problems(self) -> dict[Problem, int]:
        return {problem: len(texts) for problem, texts in self.report.problems.items()}

    def region(self, name: str) -> np.ndarray:
        """Altered region of a picture, as read in training."""
        mask = self.by_name[name].mask
        assert mask is not None
        with Image.open(self.folder / mask) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            assert image.size == (self.by_name[name].width, self.by_name[name].height)
            return np.asarray(image) > 0


def rows_of_csv(*rows: tuple[object, ...], delimiter: str = ",") -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()
