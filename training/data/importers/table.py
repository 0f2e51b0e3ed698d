"""Data sets as tables with one row per picture, such as COCO-Inpaint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from training.data.importers.layout import (
    NON_ZERO,
    SPLITS,
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
    coco_id,
    listed,
    read_table,
    read_text,
    slashed,
)
from training.data.labels import LABELS, Kind

FIELDS = ("path", "mask", "kind", "generator", "mask_type", "guidance", "source_id", "split")
"""Names of the columns that are read."""

# Names of the classes in tables, besides our names of kinds.
_WORDS = {
    **{word: Kind.AUTHENTIC for word in ("0", "real", "original")},
    **{word: Kind.INPAINT for word in ("1", "fake", "inpainted", "inpainting")},
    **{kind.value: kind for kind in Kind},
}
_COCO_NAME = re.compile(r"(?<!\d)\d{12}(?!\d)")


def _coco_inpaint(root: Path, choices: Choices) -> Iterator[Item | Note]:
    """Any table (`.csv`, `.tsv`, `.json`, `.jsonl`, `.parquet`) with one row per picture.

    No layout of COCO-Inpaint is published, so the user names the table and the columns that differ
    from ours. Paths are relative to the data set's folder. Our manifests are such tables. Without a
    kind, a picture with a mask is `inpaint` and one without is `authentic`; without a source id,
    the COCO number in the file name is used. Non-zero mask pixels are inpainted.
    """
    if choices.table is None:
        raise LayoutError(f"{root}: this data set has no fixed layout; name its table with --table")
    columns = {name: choices.columns.get(name, name) for name in FIELDS}
    for number, record in enumerate(records(choices.table), start=1):
        if number == 1 and (missing := _absent(record, choices.columns)):
            raise LayoutError(f"{choices.table}: no column {missing}; it has {', '.join(record)}")
        values = {name: _text(record.get(column)) for name, column in columns.items()}
        where = f"{choices.table}: row {number}"
        item = _item(root, values, choices.kind or Kind.INPAINT)
        yield Note(Problem.NAME, f"{where}: {item}") if isinstance(item, str) else item


def _absent(record: Mapping[str, object], columns: Mapping[str, str]) -> str | None:
    wanted = {"path": "path", **columns}
    return next((column for column in wanted.values() if column not in record), None)


def _item(root: Path, values: Mapping[str, str | None], default: Kind) -> Item | str:
    """Return the picture of a row, or the problem of the row."""
    path, mask, kind, split = (values[name] for name in ("path", "mask", "kind", "split"))
    if path is None:
        return "no path"
    if kind is not None and kind.lower() not in _WORDS:
        return f"kind {kind!r} is none of {', '.join(_WORDS)}"
    if split is not None and split.lower() not in SPLITS:
        return f"split {split!r} is none of {', '.join(SPLITS)}"
    guesses = []
    taken = default if mask else Kind.AUTHENTIC
    if kind is not None:
        taken = _WORDS[kind.lower()]
    else:
        guesses.append((Problem.KIND, f"{taken}, {'with' if mask else 'without'} a mask"))
    source, known = _source(values["source_id"], slashed(path))
    if not known and LABELS[taken].needs_region:
        guesses.append((Problem.SOURCE, source))
    return Item(
        listed(root, path),
        taken,
        source,
        mask=listed(root, mask) if mask else None,
        generator=values["generator"],
        mask_type=values["mask_type"],
        guidance=values["guidance"],
        split=SPLITS[split.lower()] if split else None,
        guesses=tuple(guesses),
    )


def _source(source_id: str | None, path: str) -> tuple[str, bool]:
    """Return the source id of a picture, and whether it is certain."""
    if source_id is not None:
        return coco_id(source_id) if source_id.isdigit() else source_id, True
    named = _COCO_NAME.search(Path(path).stem)
    if named is not None:
        return coco_id(named[0]), True
    return Path(path).with_suffix("").as_posix(), False


def _text(value: object) -> str | None:
    """Return a table value as text; None if empty."""
    if value is None or value == "" or value != value:  # the last is NaN
        return None
    return str(value)


def records(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table (`.csv`, `.tsv`, `.json`, `.jsonl`, `.parquet`).

    Raises:
        LayoutError: It cannot be read.
    """
    try:
        match file.suffix.lower():
            case ".csv" | ".tsv" as suffix:
                yield from read_table(file, "\t" if suffix == ".tsv" else ",")
            case ".jsonl":
                lines = filter(str.strip, read_text(file).split("\n"))
                yield from _objects(file, map(json.loads, lines))
            case ".json":
                yield from _objects(file, json.loads(read_text(file)))
            case ".parquet":
                yield from _parquet_rows(file)
            case suffix:
                raise LayoutError(f"{file}: tables end in .csv, .tsv, .json, .jsonl or .parquet")
    except OSError as error:
        raise LayoutError(f"{file}: {error}") from error
    except json.JSONDecodeError as error:
        raise LayoutError(f"{file}: not JSON: {error}") from error


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise LayoutError(f"{file}: {error}") from error


def _objects(file: Path, values: Iterable[object]) -> Iterator[dict[str, Any]]:
    for value in values:
        if not isinstance(value, dict):
            raise LayoutError(f"{file}: not a list of objects")
        yield value


COCO_INPAINT = Layout(
    "COCO-Inpaint: any table of pictures, with --table and --column; non-zero = inpainted",
    _coco_inpaint,
    mask=NON_ZERO,
    published={"authentic": 117_266, "inpaint": 258_266},
)
