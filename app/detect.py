"""`gamma detect`: score picture files without service or Redis."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from enum import Enum, auto
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.overlays import COLORMAPS, Colormap
from app.pictures import MEDIA_TYPES
from app.schemas import Head
from app.settings import Settings
from pictures.blending import heat_map
from pictures.decoders import Decoders
from pictures.errors import PictureError

_SUFFIXES = frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in MEDIA_TYPES
)
_COLUMNS = ("file", "ai_probability", "verdict", "manipulated", "model_version", "error")


class Format(Enum):
    """How the results are printed."""

    TABLE = auto()
    JSON = auto()
    CSV = auto()


def detect_files(
    paths: Iterable[Path], settings: Settings, output: Format, overlays: Path | None
) -> bool:
    """Print one result a picture, in the order given.

    Args:
        paths: files, or folders that are searched for pictures.
        settings: those of this process.
        output: JSON lines and CSV go to standard output, progress to standard error.
        overlays: folder for `<name>.ai.png` and `<name>.manipulation.png`.

    Returns:
        Whether every picture could be read.

    Raises:
        CheckpointError: the model cannot be loaded.
    """
    from model.views import View
    from worker.main import load_detector

    detector = load_detector(settings)
    if not detector.info.trained:
        Console(stderr=True).print("[yellow]The model is untrained: its scores mean nothing.")
    files = list(_pictures(paths))
    view = View(settings.default_view)
    with closing(Decoders(1, max_pixels=settings.max_pixels)) as decoders:
        rows = (
            _detect(file, decoders, detector, view, overlays)
            for file in track(files, "detecting", console=Console(stderr=True), transient=True)
        )
        return _PRINTERS[output](rows)


def _pictures(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
        else:
            yield path


def _detect(
    file: Path, decoders: Decoders, detector: Any, view: Any, overlays: Path | None
) -> dict[str, Any]:
    from model.detector import GlanceError

    try:
        found = detector.examine(decoders.decode(file.read_bytes()), view)
    except (PictureError, GlanceError) as error:
        return {"file": str(file), "error": str(error)}
    if overlays is not None and found.masks is not None:
        colours = COLORMAPS[Colormap.HEAT].tobytes()
        overlays.mkdir(parents=True, exist_ok=True)
        for head, mask in zip((Head.AI, Head.MANIPULATION), found.masks, strict=True):
            image = heat_map(Image.fromarray(mask.values), colours)
            image.save(overlays / f"{file.name}.{head}.png")
    return {
        "file": str(file),
        "ai_probability": round(found.ai_probability, 6),
        "verdict": str(found.verdict),
        "manipulated": found.manipulated,
        "model_version": detector.info.version,
    }


def _print_table(rows: Iterable[dict[str, Any]]) -> bool:
    table = Table(*_COLUMNS)
    fine = True
    for row in rows:
        fine &= "error" not in row
        table.add_row(*(str(row.get(column, "")) for column in _COLUMNS))
    Console().print(table)
    return fine


def _print_json(rows: Iterable[dict[str, Any]]) -> bool:
    fine = True
    for row in rows:
        fine &= "error" not in row
        print(json.dumps(row), flush=True)
    return fine


def _print_csv(rows: Iterable[dict[str, Any]]) -> bool:
    writer = csv.DictWriter(sys.stdout, _COLUMNS)
    writer.writeheader()
    fine = True
    for row in rows:
        fine &= "error" not in row
        writer.writerow(row)
    return fine


_PRINTERS = {Format.TABLE: _print_table, Format.JSON: _print_json, Format.CSV: _print_csv}
