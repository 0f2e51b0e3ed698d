"""The pictures of a source, in a fixed order, without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.command.scan.places import BUCKET, bucket
from pictures import finding

_PAGE = 1000  # keys in a request
_LISTS = (".txt", ".parquet")
_COLUMN = "path"


class SourceError(ValueError):
    """A source is not a folder, a prefix or a list of paths."""


class Source:
    """A folder, `s3://BUCKET/PREFIX`, or a list of paths (`.txt`, `.parquet`)."""

    def __init__(self, given: str) -> None:
        """Check the kind of a source.

        Raises:
            SourceError: If it is none of the three.
        """
        self._given = given
        self.left_out = 0
        """Files left out of the list so far because they are not pictures by their names."""
        in_bucket = given.startswith(BUCKET)
        if given.lower().endswith(_LISTS):
            parquet = given.lower().endswith(".parquet")
            self._find = self._in_parquet if parquet else self._in_text
        elif in_bucket:
            self._find = self._in_bucket
        else:
            self._find = self._in_folder
        if not in_bucket and not os.path.exists(given):
            raise SourceError(f"{given} does not exist")
        if self._find == self._in_folder and not os.path.isdir(given):
            raise SourceError(f"{given} is neither a folder nor a list (.txt, .parquet)")

    def paths(self) -> Iterator[bytes]:
        """List the pictures: absolute paths, or `s3://BUCKET/KEY`.

        The order depends on the names alone. Memory is bounded by the largest folder.

        Raises:
            SourceError: If an entry of a list is not a path.
            OSError: If the source cannot be read.
        """
        return self._find()

    def _in_folder(self) -> Iterator[bytes]:
        for folder, folders, _ in os.walk(os.path.abspath(self._given), onerror=self._refuse):
            folders.sort()
            found = finding.find(Path(folder), deep=False)
            self.left_out += len(found.passed_over)
            for path in sorted([*found.pictures, *(one.path for one in found.failures)]):
                yield os.fsencode(path)

    @staticmethod
    def _refuse(error: OSError) -> None:
        """Raise instead of leaving an unreadable folder out."""
        raise error

    def _in_bucket(self) -> Iterator[bytes]:
        name, _, prefix = self._given.removeprefix(BUCKET).partition("/")
        prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        more: dict[str, Any] = {}
        while True:
            page = bucket().call_s3(
                "list_objects_v2", Bucket=name, Prefix=prefix, MaxKeys=_PAGE, **more
            )
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if os.path.splitext(key)[1].lower() in finding.SUFFIXES:
                    yield f"{BUCKET}{name}/{key}".encode()
                elif not key.endswith("/"):
                    self.left_out += 1
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _in_text(self) -> Iterator[bytes]:
        with self._open() as lines:
            for number, line in enumerate(lines, start=1):
                path = line.rstrip(b"\r\n")
                if path:
                    yield _absolute(path, f"{self._given}: line {number}")

    def _in_parquet(self) -> Iterator[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._open() as stream:
            try:
                file = pq.ParquetFile(stream)
                if _COLUMN not in file.schema_arrow.names:
                    raise SourceError(f"{self._given} has no column `{_COLUMN}`")
                number = 0
                for batch in file.iter_batches(columns=[_COLUMN]):
                    for value in batch.column(0).to_pylist():
                        number += 1
                        where = f"{self._given}: row {number}"
                        if not isinstance(value, str) or not value:
                            raise SourceError(f"{where} is not a path")
                        yield _absolute(os.fsencode(value), where)
            except pa.ArrowInvalid as error:
                raise SourceError(f"{self._given} is not a Parquet file: {error}") from None

    def _open(self) -> Any:
        if self._given.startswith(BUCKET):
            return bucket().open(self._given.removeprefix(BUCKET), "rb")
        return open(self._given, "rb")


def shown(path: bytes) -> str:
    """The path in the results: text that differs for different paths."""
    if path.startswith(BUCKET.encode()):
        return path.decode()
    return finding.name_of(Path(os.fsdecode(path)))


def _absolute(path: bytes, where: str) -> bytes:
    """Raise SourceError for addresses other than S3's."""
    if path.startswith(BUCKET.encode()):
        try:
            path.decode()
        except UnicodeDecodeError:
            raise SourceError(f"{where} is not UTF-8") from None
        return path
    if b"://" in path:
        raise SourceError(f"{where} is neither a path nor s3://BUCKET/KEY")
    return os.path.abspath(path)
