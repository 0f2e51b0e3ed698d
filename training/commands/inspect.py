"""`gamma-train data audit` and `gamma-train data preview`."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from training.data import manifest
from training.data import preview as sheets
from training.data.audit import Audit, audit, inspect
from training.data.labels import LABELS, Kind
from training.data.manifest import ManifestError, Row
from training.data.separation import describe
from training.output import console, progress_bar, writing

_SHOWN = 5  # examples printed per problem
_CORES = os.cpu_count() or 1
_output = console()


def audit_manifests(
    files: Annotated[
        list[Path],
        typer.Argument(
            exists=True, dir_okay=False, help="Manifests that are used together for training"
        ),
    ],
    limit: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=1,
            help="Maximum balanced accuracy of a classifier on format, JPEG quality or size alone",
        ),
    ] = 0.6,
    quick: Annotated[
        bool, typer.Option("--quick", help="Trust the manifest and open no picture")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of threads")] = _CORES,
) -> None:
    """Check manifests for problems that would bias training; exit code 1 if there are any.

    Problems are: format, JPEG quality or size separates the classes; versions of one original or
    identical files are in several splits; identical files have different labels; files are
    missing, damaged or differ from the manifest.
    """
    rows = [(file.parent, row) for file in files for row in manifest.read(file)]
    with progress_bar() as bar:
        pictures = inspect(rows, open_files=not quick, workers=workers)
        found = list(bar.track(pictures, total=len(rows), description="reading pictures"))
    result = audit(found, limit)
    _output.print(_kinds_table([row for _, row in rows]))
    _output.print(_separation_table(result))
    for colour, notes in (("yellow", result.remarks), ("red", result.problems)):
        for name, places in notes.items():
            _output.print(f"{name}: {len(places)}", style=colour)
            for place in places[:_SHOWN]:
                _output.print(f"  {place}", soft_wrap=True)
    if not result.passed:
        reasons = [s.attribute for s in result.leaks] + list(result.problems)
        _output.print(f"FAILED: {', '.join(reasons)}", style="red", soft_wrap=True)
        for line in _advice(result):
            _output.print(line, soft_wrap=True)
        raise typer.Exit(1)
    _output.print("passed", style="green")


def preview(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Manifest")],
    out: Annotated[Path, typer.Argument(dir_okay=False, help="PNG to write")],
    count: Annotated[
        int, typer.Option(min=1, help="Number of pictures, evenly from all kinds")
    ] = 16,
    columns: Annotated[int, typer.Option(min=1, help="Pictures per row")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the choice")] = 0,
) -> None:
    """Draw a contact sheet: picture, AI mask, manipulation mask, labels."""
    rows = sheets.choose(file, count, seed)
    if not rows:
        raise ManifestError(f"{file}: no pictures")
    sheet = sheets.draw_sheet(rows, file.parent, columns)
    with writing(out) as partial:
        sheet.save(partial, "PNG")
    _output.print(f"{len(rows)} pictures, {out}", soft_wrap=True)


def _kinds_table(rows: list[Row]) -> Table:
    by_kind: dict[Kind, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[row.kind].append(row)
    heads = ("kind", "class", "pictures", "format", "JPEG quality", "size", "split")
    table = Table(*heads, title=f"{len(rows)} pictures")
    for kind in Kind:
        if kind in by_kind:
            group = by_kind[kind]
            table.add_row(
                kind,
                str(int(LABELS[kind].ai_generated)),
                str(len(group)),
                describe([row.format for row in group]),
                describe([row.jpeg_quality for row in group]),
                describe([f"{row.width} x {row.height}" for row in group]),
                describe([row.split for row in group]),
            )
    return table


def _separation_table(result: Audit) -> Table:
    table = Table(
        *("attribute alone", "balanced accuracy", "authentic", "AI-generated", ""),
        title=f"Separation of the classes (0.5 = chance, limit {result.limit})",
        caption=None if result.separations else "only one class: nothing to compare",
    )
    for found in result.separations:
        verdict = Text("LEAK", "red") if found in result.leaks else "ok"
        table.add_row(
            found.attribute,
            f"{found.balanced_accuracy:.2f} ± {found.standard_error:.2f}",
            found.authentic,
            found.ai_generated,
            verdict,
        )
    return table


def _advice(result: Audit) -> list[str]:
    leaks = {leak.attribute for leak in result.leaks}
    advice = []
    if "format" in leaks:
        advice.append("format: `gamma-train data align` converts other formats to JPEG")
    elif "JPEG quality" in leaks:
        advice.append("JPEG quality: `gamma-train data align --everything` re-encodes JPEGs too")
    if leaks - {"format", "JPEG quality"}:
        advice.append("size: choose other pictures, or crop both classes to one size")
    return advice
