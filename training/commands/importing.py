"""`gamma-train data import` and `gamma-train data split`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from pictures.finding import name_of
from training.data import manifest, splits
from training.data.importers import LAYOUTS
from training.data.importers.layout import Choices, Layout, LayoutError, Problem
from training.data.importers.reading import Import, Report, listing
from training.data.importers.table import FIELDS
from training.data.labels import Kind
from training.output import console, progress_bar, write_text

_SHOWN = 20  # problems printed per kind; the file has all

_output = console()
_errors = console(stderr=True)


def import_data_set(
    name: Annotated[
        str,
        typer.Argument(help="Data set; listed below.", autocompletion=lambda: list(LAYOUTS)),
    ],
    root: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder of the data set.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Manifest, .jsonl or .parquet [default: ROOT/manifest.jsonl]"),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Number of pictures per generator and per class [default: all]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    kind: Annotated[
        Kind | None,
        typer.Option(help="Kind of the pictures with a mask, if the layout does not define it."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Table or list to read, if the layout has no fixed one.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN of the table, e.g. mask=mask_path; repeatable."),
    ] = None,
) -> None:
    """Read a data set in its published layout into a manifest.

    Pictures left out and facts guessed are counted by reason and listed in MANIFEST.problems.
    """
    file = out or root / "manifest.jsonl"
    if name not in LAYOUTS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(LAYOUTS)}")
    if table is not None and table.resolve() == file.resolve():
        raise typer.BadParameter(f"{file} is the input table; choose another output file")
    layout = LAYOUTS[name]
    with progress_bar() as progress:
        task = progress.add_task(f"listing {root}", total=None)
        reading = Import(
            layout,
            root,
            file,
            choices=Choices(kind, table, _columns(column or [])),
            sample=sample,
            seed=seed,
        )
        progress.update(task, description=f"reading {root}", total=reading.total)
        count = manifest.write(reading.rows(lambda: progress.advance(task)), file)
    _output.print(f"{count} rows in {file}", soft_wrap=True)
    _output.print(_counts(layout, reading.report))
    _list_problems(reading.report, file)


def split_manifests(
    manifests: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="One or more manifests.")
    ],
    out: Annotated[Path, typer.Option(help="Manifest for all rows, .jsonl or .parquet.")],
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share of originals.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of originals.")] = 0.0,
    seed: Annotated[
        int, typer.Option(help="Random seed; the same seed gives the same splits.")
    ] = 0,
    hold_out_generator: Annotated[
        list[str] | None, typer.Option(help="Generator to hold out (pattern); repeatable.")
    ] = None,
    hold_out_source: Annotated[
        list[str] | None, typer.Option(help="Source ids to hold out (pattern); repeatable.")
    ] = None,
    held_out_to: Annotated[
        Literal["validation", "test"], typer.Option(help="Split of the held-out pictures.")
    ] = "test",
) -> None:
    """Split manifests into train, validation and test, with each original in one split only.

    Existing splits of the rows, such as published ones, are replaced.
    """
    folder = out.resolve().parent
    plan = splits.Plan(
        validation, test, seed, hold_out_generator or (), hold_out_source or (), held_out_to
    )
    before = [
        manifest.rebase(row, file.resolve().parent, folder)
        for file in manifests
        for row in manifest.read(file)
    ]
    rows = splits.assign(before, plan)
    count = manifest.write(rows, out)
    pairs = zip(before, rows, strict=True)
    moved = sum(old.split not in (None, new.split) for old, new in pairs)
    if moved:
        _errors.print(f"{moved} pictures were in another split before", style="yellow")
    present = [kind for kind in Kind if any(row.kind is kind for row in rows)]
    table = Table(
        "split",
        "pictures",
        "originals",
        *present,
    )
    for split in (*manifest.SPLITS, None):
        part = [row for row in rows if row.split == split]
        kinds = Counter(row.kind for row in part)
        originals = len({row.source_id for row in part})
        if part:
            numbers = (len(part), originals, *(kinds[kind] for kind in present))
            table.add_row(split or "none (held out)", *map(str, numbers))
    _output.print(f"{count} rows in {out}", soft_wrap=True)
    _output.print(table)


def names() -> str:
    """Return the importable data sets, for the help text."""
    return "\n\n".join(f"{name}: {layout.about}" for name, layout in LAYOUTS.items())


def _columns(pairs: Iterable[str]) -> dict[str, str]:
    columns = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals or ours not in FIELDS:
            raise LayoutError(
                f"--column {pair}: must be FIELD=COLUMN with a FIELD of {', '.join(FIELDS)}"
            )
        columns[ours] = theirs
    return columns


def _counts(layout: Layout, report: Report) -> Table:
    table = Table("what", "found", "published")
    for name in sorted(report.found.keys() | layout.published.keys()):
        published = layout.published.get(name)
        table.add_row(name, str(report.found[name]), "" if published is None else str(published))
    for problem in Problem:
        if found := report.problems.get(problem):
            table.add_row(problem, str(len(found)), style="yellow")
    for reason, count in Counter(one.reason for one in report.left_out).items():
        table.add_row(reason, str(count), style="yellow")
    return table


def _list_problems(report: Report, file: Path) -> None:
    all_of_them = listing(file)
    texts: dict[str, list[str]] = {str(kind): found for kind, found in report.problems.items()}
    for one in report.left_out:
        detail = f": {one.detail}" if one.detail else ""
        texts.setdefault(str(one.reason), []).append(f"{name_of(one.path)}{detail}")
    lines = [f"{reason}: {text}" for reason, found in texts.items() for text in found]
    if not lines:
        all_of_them.unlink(missing_ok=True)
        return
    write_text("\n".join(lines) + "\n", all_of_them)
    for reason, found in texts.items():
        for text in found[:_SHOWN]:
            _errors.print(f"{reason}: {text}", soft_wrap=True)
    _errors.print(f"all {len(lines)} left out or guessed: {all_of_them}", soft_wrap=True)
