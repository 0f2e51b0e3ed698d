"""Pictures in Parquet files, as in Hugging Face data sets; OpenSDI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.importers.layout import (
    WHITE,
    Cell,
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
)
from training.data.labels import Kind


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a Parquet file."""

    root: Path
    file: Path
    group: int
    row: int
    values: Mapping[str, Any]
    """Values of the requested columns."""

    @property
    def key(self) -> str:
        """Unique key in the data set."""
        shard = self.file.relative_to(self.root).with_suffix("").as_posix()
        return f"{shard}/{self.group:04d}-{self.row:05d}"

    def cell(self, column: str) -> Cell:
        """Return a picture of the row."""
        return Cell(self.file, column, self.group, self.row)


def records(root: Path, values: tuple[str, ...], images: tuple[str, ...]) -> Iterator[Record]:
    """Yield the rows of all Parquet files below a folder.

    Args:
        root: The folder.
        values: Columns to read.
        images: Columns that must exist; their cells are loaded later.

    Raises:
        LayoutError: There is no Parquet file, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(root.rglob("*.parquet"))
    if not files:
        raise LayoutError(f"{root}: no .parquet files")
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                for column in (*values, *images):
                    if column not in table.schema_arrow.names:
                        raise LayoutError(f"{file}: no column {column}")
                for group in range(table.num_row_groups):
                    rows = table.read_row_group(group, columns=list(values)).to_pylist()
                    for row, found in enumerate(rows):
                        yield Record(root, file, group, row, found)
        except pa.ArrowInvalid as error:
            raise LayoutError(f"{file}: {error}") from error


def _opensdi(root: Path, _: Choices) -> Iterator[Item | Note]:
    """Parquet files `<generator>-….parquet` with rows `key,image,mask,label`.

    Label 0 is authentic. Label 1 without a mask is wholly generated; with a mask, white was
    inpainted by diffusers pipelines, which decode the whole picture: the kind is `inpaint`.
    """
    for record in records(root, ("key", "mask", "label"), ("image",)):
        key, label = str(record.values["key"]), record.values["label"]
        if label not in (0, 1):
            yield Note(Problem.NAME, f"{record.file}: {key}: label {label!r} is neither 0 nor 1")
            continue
        masked = _has_bytes(record.values["mask"])
        fake = Kind.INPAINT if masked else Kind.SYNTHETIC
        generator = record.file.stem.split("-")[0]
        yield Item(
            record.cell("image"),
            fake if label else Kind.AUTHENTIC,
            f"opensdi/{key}",
            key=record.key,
            mask=record.cell("mask") if label and masked else None,
            generator=generator if label else None,
        )


def _has_bytes(value: object) -> bool:
    return bool(value.get("bytes") if isinstance(value, Mapping) else value)


OPENSDI = Layout(
    "OpenSDI: Parquet rows key,image,mask,label; white = inpainted",
    _opensdi,
    mask=WHITE,
    published={"authentic": 150_000, "sd15": 110_000, "sd2": 10_000, "sdxl": 10_000}
    | {"sd3": 10_000, "flux": 10_000},
)
