"""`gamma detect`: score picture files without the service and Redis."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from enum import Enum, auto
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import TypeAdapter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Column, Table

from app.command.console import console
from app.command.scores import Scores, to_line
from app.contract.schemas import Head, ViewInfo
from app.contract.settings import Settings
from app.contract.spreadsheet import as_text
from pictures import finding
from pictures.blending import heat_map
from pictures.decoders import Decoders
from pictures.errors import PictureError
from pictures.finding import LeftOut, name_of, reason_of
from pictures.findings import View
from pictures.frames import count_frames
from pictures.header import read_header
from pictures.origin import Provenance
from pictures.overlays import COLORMAPS, Colormap

_FINDINGS = (
    *("ai_probability", "verdict", "manipulated", "not_judged", "notes", "frame", "frames"),
    *("file_says", "model_version"),
)
_COLUMNS = ("file", *_FINDINGS, "error")

Row = dict[str, Any]
"""Result of one picture: `file`, and its findings or an `error`."""


class Format(Enum):
    """Output format of the results."""

    TABLE = auto()
    JSON = auto()
    CSV = auto()
    NOTHING = auto()


def detect_files(
    paths: Iterable[Path],
    settings: Settings,
    output: Format,
    overlays: Path | None = None,
    scores: Path | None = None,
    frames: int = 1,
) -> bool:
    """Score pictures and print one result per picture, in the given order.

    Args:
        paths: files, and folders to search for pictures.
        settings: settings of this process.
        output: format of the results on standard output; messages go to standard error.
        overlays: folder for the heat maps, with the subfolders of the pictures.
        scores: file to append the results to; pictures with a score in it are skipped.
        frames: maximum number of frames of an animation to examine.

    Returns:
        True if each folder contains pictures, each picture has a score, and all heat maps were
        written.

    Raises:
        CheckpointError: the model cannot be loaded.
        ModelSickError: it does not answer as it should.
        ScoresError: `scores` is not such a file, or of another model or view.
        TrustListError: `GAMMA_TRUST_LIST` cannot be used.
        OSError: `scores` cannot be read or written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may not fit its encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    search = _Search(paths, overlays)
    _tell(finding.summarise(search.passed_over))
    _tell((f"{name_of(folder)}: contains no pictures" for folder in search.empty), "red")
    if not search.entries:
        return False

    from worker.main import load_detector
    from worker.provenance import options

    origins = options(settings)
    detector = load_detector(settings)
    detector.check()
    if not detector.info.trained:
        _tell(["The model is untrained; its scores are meaningless."], "yellow")
    view = ViewInfo(mode=View(settings.default_view), frames=frames)
    kept = None if scores is None else Scores(scores, detector.info.digest, view.asked)
    done = set() if kept is None else kept.done
    todo = [entry for entry in search.entries if _name(entry) not in done]
    maps = None if overlays is None else _HeatMaps(overlays, search.root)
    failed = 0
    with closing(Decoders(1, max_pixels=settings.max_pixels, provenance=origins)) as decoders:

        def rows() -> Iterator[Row]:
            nonlocal failed
            for entry in _tracked(todo, output):
                row = _detect(entry, decoders, detector, view, maps)
                failed += "error" in row
                if kept is not None:
                    kept.add(row)
                yield row

        _PRINTERS[output](rows())
    if failed or kept is not None:
        skipped = f", {len(search.entries) - len(todo)} skipped" if done else ""
        _tell([f"{len(todo) - failed} pictures scored, {failed} failed{skipped}"])
    unwritten = [] if maps is None else maps.unwritten
    _tell((f"heat map not written: {line}" for line in unwritten), "red")
    return not (failed or unwritten or search.empty)


def _tell(lines: Iterable[str], style: str | None = None) -> None:
    errors = console(stderr=True)
    for line in lines:
        errors.print(line, style=style, soft_wrap=True)


class _Search:
    """The pictures that paths name, without duplicates."""

    def __init__(self, paths: Iterable[Path], overlays: Path | None) -> None:
        self.passed_over: list[LeftOut] = []
        self.empty: list[Path] = []
        entries: list[Path | LeftOut] = []
        roots = []
        for path in paths:
            if not os.path.isdir(path):
                entries.append(path)
                roots.append(os.path.dirname(os.path.abspath(path)))
                continue
            found = finding.find(path, skip=() if overlays is None else (overlays,))
            inside: list[Path | LeftOut] = [*found.pictures, *found.failures]
            entries += sorted(inside, key=_path)
            roots.append(os.path.abspath(path))
            self.passed_over += found.passed_over
            if not inside:
                self.empty.append(path)
        self.entries = list({os.path.abspath(_path(one)): one for one in entries}.values())
        self.root = os.path.commonpath(roots)
        """Common parent folder of all pictures."""


class _HeatMaps:
    """A folder of heat maps: `<picture>.ai.png` and `<picture>.manipulation.png`.

    It mirrors the subfolders of the pictures below `root`, so that equal file names do not
    collide. Existing files are never replaced.
    """

    def __init__(self, folder: Path, root: str) -> None:
        self._folder = folder
        self._root = root
        self.unwritten: list[str] = []
        """Heat maps that could not be written, each with the reason."""

    def write(self, picture: Path, masks: Any) -> None:
        colours = COLORMAPS[Colormap.HEAT].tobytes()
        place = self._folder / os.path.relpath(os.path.abspath(picture), self._root)
        for head, mask in zip((Head.AI, Head.MANIPULATION), masks, strict=True):
            stream = io.BytesIO()
            heat_map(Image.fromarray(mask.values), colours).save(stream, "PNG")
            file = place.with_name(f"{place.name}.{head}.png")
            try:
                _write_new(file, stream.getvalue())
            except OSError as error:
                self.unwritten.append(f"{name_of(file)}: {reason_of(error)}")


def _write_new(file: Path, data: bytes) -> None:
    """Write a file atomically, unless it exists with the same content.

    Raises:
        FileExistsError: If it exists with other content.
        OSError: If it cannot be written.
    """
    if os.path.lexists(file):
        if file.read_bytes() != data:
            raise FileExistsError("another file with this name exists and is kept")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(data)
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)


def _path(entry: Path | LeftOut) -> Path:
    return entry.path if isinstance(entry, LeftOut) else entry


def _name(entry: Path | LeftOut) -> str:
    return name_of(_path(entry))


def _tracked(entries: list[Path | LeftOut], output: Format) -> Iterator[Path | LeftOut]:
    """The entries, with a progress bar on standard error.

    The bar must not redirect standard output, which may be a file or a pipe.
    """
    errors = console(stderr=True)
    streams = output in (Format.JSON, Format.CSV)
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not errors.is_terminal or (streams and sys.stdout.isatty()),
    ) as bar:
        yield from bar.track(entries)


def _detect(
    entry: Path | LeftOut, decoders: Decoders, detector: Any, view: ViewInfo, maps: _HeatMaps | None
) -> Row:
    from model.detector import GlanceError
    from model.engine import ModelOutputError
    from model.findings import decisive, manipulated
    from worker.provenance import FileStatements

    name = _name(entry)
    if isinstance(entry, LeftOut):
        return {"file": name, "error": entry.detail}
    try:
        data = entry.read_bytes()
        said = FileStatements(decoders, data)
        decoded = decoders.frames(data, view.frames)
        said.pixels = decoded[0].pixels
        reason = detector.not_judged(said.pixels)
        findings = [
            detector.examine(frame.pixels, view.mode, len(decoded))
            for frame in (() if reason else decoded)
        ]
    except OSError as error:
        return {"file": name, "error": reason_of(error)}
    except (PictureError, GlanceError, ModelOutputError) as error:
        return {"file": name, "error": str(error)}
    place = decisive(findings) if findings else 0
    found = findings[place] if findings else None
    if maps is not None and found is not None and found.masks is not None:
        maps.write(entry, found.masks)
    origin = said.provenance
    kind = read_header(data, max_pixels=said.pixels.size).format
    return {
        "file": name,
        "ai_probability": found and round(found.ai_probability, 6),
        "verdict": found and str(found.verdict),
        "manipulated": found and manipulated(findings),
        "not_judged": reason and str(reason),
        "notes": [str(note) for note in found.notes] if found else [],
        "frame": decoded[place].number,
        "frames": count_frames(data, kind),
        "examined": [
            {
                "frame": frame.number,
                "time_ms": frame.time_ms,
                "ai_probability": round(one.ai_probability, 6),
                "verdict": str(one.verdict),
                "manipulated": one.manipulated,
            }
            for frame, one in zip(decoded, findings, strict=False)
        ],
        "file_says": origin.summary.says and str(origin.summary.says),
        "provenance": TypeAdapter(Provenance).dump_python(origin, mode="json"),
        "model_version": detector.info.version,
        "model_digest": detector.info.digest,
        "view": view.asked,
    }


def _cell(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    return " ".join(value) if isinstance(value, list) else str(value)


def _print_table(rows: Iterable[Row]) -> None:
    table = Table(*(Column(name, overflow="fold") for name in _COLUMNS))
    try:
        for row in rows:
            table.add_row(*(_cell(row, column) for column in _COLUMNS))
    finally:  # after Ctrl-C, show the results so far
        console().print(table)


def _print_json(rows: Iterable[Row]) -> None:
    for row in rows:
        print(to_line(row), flush=True)


def _print_csv(rows: Iterable[Row]) -> None:
    writer = csv.DictWriter(sys.stdout, _COLUMNS)
    writer.writeheader()
    for row in rows:
        # A file's name comes from whoever made the file.
        writer.writerow({column: as_text(_cell(row, column)) for column in _COLUMNS})
        sys.stdout.flush()


def _print_nothing(rows: Iterable[Row]) -> None:
    for _ in rows:
        pass


_PRINTERS = {
    Format.TABLE: _print_table,
    Format.JSON: _print_json,
    Format.CSV: _print_csv,
    Format.NOTHING: _print_nothing,
}
