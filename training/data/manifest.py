"""The manifest: one row per picture, for all data sets.

The file suffix defines the format: `.parquet`, or JSON lines for any other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image, JpegImagePlugin
from pydantic import AfterValidator, BaseModel, ValidationError, model_validator

from pictures.decoding import decode
from pictures.errors import PictureError
from pictures.finding import name_of
from training.data.labels import LABELS, Kind
from training.errors import UserError
from training.output import writing

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

MAX_PIXELS = 150_000_000
"""Maximum width times height of a picture."""

_BATCH = 8192  # rows of a Parquet row group

# Luminance table of ITU-T T.81, Annex K.1, at quality 50.
_LUMINANCE_50 = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)


class PictureUnreadableError(UserError):
    """A picture cannot be read; the message names the file."""


class ManifestError(UserError):
    """A manifest is invalid; the message names the file and the row."""


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
"""Text that can be stored as UTF-8; not every file name can."""


class Row(BaseModel, extra="forbid", frozen=True):
    """One picture. Paths are relative to the manifest's folder."""

    path: Text
    kind: Kind
    mask: Text | None = None
    generator: Text | None = None
    mask_type: Text | None = None
    guidance: Text | None = None
    source_id: Text
    split: Split | None = None
    width: int
    height: int
    format: str
    jpeg_quality: int | None = None
    sha256: str

    @model_validator(mode="after")
    def _mask_where_needed(self) -> Row:
        if LABELS[self.kind].needs_region and self.mask is None:
            raise ValueError(f"{self.path}: a picture of kind {self.kind} needs a region mask")
        return self


def describe(
    file: Path,
    root: Path,
    kind: Kind,
    *,
    source_id: str,
    generator: str | None = None,
    mask: Path | None = None,
    mask_type: str | None = None,
    guidance: str | None = None,
    split: Split | None = None,
    data: bytes | None = None,
) -> Row:
    """Decode a picture and return its row.

    Args:
        file: The picture file.
        root: The manifest's folder.
        kind: Kind of the picture.
        source_id: Id of the original, shared by all its versions.
        generator: Name of the generator, if it is AI-generated.
        mask: Region mask (8-bit PNG of the same size), if the kind has one.
        mask_type: How the region was chosen.
        guidance: Prompt or other guidance of the generator.
        split: Split of the data set.
        data: Content of `file`, if already read.

    Returns:
        The row, with the size of the decoded, upright picture.

    Raises:
        PictureUnreadableError: It cannot be decoded, or a name is not valid UTF-8.
    """
    if data is None:
        data = file.read_bytes()
    try:
        height, width, _ = decode(data, max_pixels=MAX_PIXELS).shape
    except PictureError as error:
        raise PictureUnreadableError(f"{name_of(file)}: {error}") from error
    with Image.open(io.BytesIO(data)) as picture:
        image_format = str(picture.format)
        quality = jpeg_quality(picture)
    try:
        return Row(
            path=_relative(file, root),
            kind=kind,
            mask=None if mask is None else _relative(mask, root),
            generator=generator,
            mask_type=mask_type,
            guidance=guidance,
            source_id=source_id,
            split=split,
            width=width,
            height=height,
            format=image_format,
            jpeg_quality=quality,
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "row"
        raise PictureUnreadableError(f"{name_of(file)}: {place}: {first['msg']}") from error


def jpeg_quality(picture: Image.Image) -> int | None:
    """Estimate the JPEG quality (1 to 100): the nearest IJG luminance table.

    None if the picture is not a JPEG.
    """
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return None
    table = np.array(picture.quantization[0])
    qualities = np.arange(1, 101)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    tables = np.clip((_LUMINANCE_50 * scales[:, None] + 50) // 100, 1, 255)
    return int(qualities[np.abs(tables - table).sum(axis=1).argmin()])


def describe_version(
    row: Row, file: Path, root: Path, kind: Kind, *, mask: Path | None, data: bytes
) -> Row:
    """Return the row of a picture derived from another one; the origin stays the same.

    Args:
        row: Row of the other picture.
        file: File of the new picture.
        root: The new manifest's folder.
        kind: Kind of the new picture.
        mask: Region mask of the new picture.
        data: Content of the new file.

    Raises:
        PictureUnreadableError: It cannot be decoded.
    """
    return describe(
        file,
        root,
        kind,
        source_id=row.source_id,
        generator=row.generator,
        mask=mask,
        mask_type=row.mask_type,
        guidance=row.guidance,
        split=row.split,
        data=data,
    )


def rebase(row: Row, old: Path, new: Path) -> Row:
    """Return the row with paths relative to folder `new` instead of `old`."""
    mask = None if row.mask is None else _relative(old / row.mask, new)
    return row.model_copy(update={"path": _relative(old / row.path, new), "mask": mask})


def write(rows: Iterable[Row], file: Path) -> int:
    """Write a manifest atomically.

    Returns:
        Number of rows.
    """
    writer = _parquet_writer if file.suffix == ".parquet" else _lines_writer
    count = 0
    with writing(file) as partial, writer(partial) as append:
        remaining = iter(rows)
        while batch := list(islice(remaining, _BATCH)):
            append(batch)
            count += len(batch)
    return count


def read(file: Path) -> Iterator[Row]:
    """Yield the rows of a manifest, in order.

    Raises:
        ManifestError: The file or a row is invalid.
    """
    for number, fields in enumerate(_records(file), start=1):
        try:
            yield Row.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "row"
            raise ManifestError(f"{file}: row {number}: {place}: {first['msg']}") from error


def _relative(file: Path, root: Path) -> str:
    return Path(os.path.relpath(file, root)).as_posix()


def _records(file: Path) -> Iterator[Mapping[str, object]]:
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(_BATCH):
                    yield from batch.to_pylist()
        except pa.ArrowInvalid as error:
            raise ManifestError(f"{file}: {error}") from error
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line.decode("utf-8-sig"))
            except ValueError as error:
                raise ManifestError(f"{file}: row {number}: {error}") from error


@contextmanager
def _lines_writer(file: Path) -> Iterator[Callable[[list[Row]], None]]:
    with file.open("w", encoding="utf-8") as lines:
        yield lambda rows: lines.writelines(
            row.model_dump_json(exclude_none=True) + "\n" for row in rows
        )


@contextmanager
def _parquet_writer(file: Path) -> Iterator[Callable[[list[Row]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = ("width", "height", "jpeg_quality")
    schema = pa.schema(
        [(name, pa.int32() if name in numbers else pa.string()) for name in Row.model_fields]
    )
    with pq.ParquetWriter(file, schema) as table:
        yield lambda rows: table.write_table(
            pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], schema)
        )
