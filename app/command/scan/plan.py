"""The partitions of a scan, and which of them are finished.

The target holds `part-NNNNNN.parquet`, one file per finished partition, and beside them, in
`_scan/`, the manifest and the list of all pictures, whose row groups are the partitions. Readers of
Parquet folders ignore names that begin with an underscore.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from app.command.scan.places import Target, target
from app.command.scan.sources import Source

_MANIFEST = "_scan/manifest.json"
_LIST = "_scan/pictures.parquet"
_ATTEMPTS = "_scan/attempts"
_FORMAT = 1
_PART = re.compile(r"part-\d{6,}\.parquet")


class PlanError(ValueError):
    """A target holds something else than results of this scan."""


@dataclass(frozen=True, slots=True)
class Model:
    """The model of a scan."""

    name: str
    version: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What all results of a target have in common."""

    format: int
    source: str
    pictures: int
    partition_size: int
    list_sha256: str
    model: Model
    view: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A scan with its target; can be sent to other processes."""

    url: str
    manifest: Manifest

    @property
    def target(self) -> Target:
        """The folder or prefix of the results."""
        return target(self.url)

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return -(-self.manifest.pictures // self.manifest.partition_size)

    def size(self, partition: int) -> int:
        """Number of pictures of a partition."""
        size = self.manifest.partition_size
        return min(size, self.manifest.pictures - partition * size)

    def unfinished(self) -> list[int]:
        """The partitions without results."""
        present = self.target.names()
        return [one for one in range(self.partitions) if part(one) not in present]

    def paths(self, partition: int) -> list[bytes]:
        """The paths of a partition."""
        import pyarrow.parquet as pq

        with self.target.open(_LIST) as stream, pq.ParquetFile(stream) as file:
            found: list[bytes] = file.read_row_group(partition).column("path").to_pylist()
            return found

    def attempts(self, partition: int) -> str:
        """Name of the file that counts the attempts at a partition."""
        return f"{_ATTEMPTS}/{partition:06}.json"

    def forget_attempts(self) -> None:
        """After an orderly stop, no picture is suspected of having ended the process."""
        place = self.target
        for name in place.names(_ATTEMPTS):
            place.delete(f"{_ATTEMPTS}/{name}")


def part(partition: int) -> str:
    """Name of the file with the results of a partition."""
    return f"part-{partition:06}.parquet"


def prepare(
    source: Source,
    given: str,
    url: str,
    model: Model,
    view: str,
    partition_size: int,
    *,
    overwrite: bool = False,
) -> Plan:
    """List the pictures, and compare them with what the target holds.

    Args:
        source: The pictures.
        given: The source as the manifest shows it.
        url: Absolute path of a folder, or `s3://BUCKET/PREFIX`.
        model: The model.
        view: The view.
        partition_size: Pictures in a partition.
        overwrite: Delete the results of another scan.

    Raises:
        PlanError: If the target holds results of other pictures, another model, view or partition
            size, or something unknown.
        SourceError: If the source is not a list of paths.
        OSError: If source or target cannot be used.
    """
    place = target(url)
    with tempfile.TemporaryFile() as file:
        pictures, digest = _write_list(source.paths(), file, partition_size)
        manifest = Manifest(_FORMAT, given, pictures, partition_size, digest, model, view)
        found = place.read(_MANIFEST)
        parts = list(filter(_PART.fullmatch, place.names()))
        try:
            if found is not None:
                _compare(_parsed(found, url), manifest, url)
                return Plan(url, manifest)
            if parts:
                raise PlanError(f"{url} holds {parts[0]}, but no manifest")
        except PlanError as error:
            if not overwrite:
                raise PlanError(f"{error}; choose another target, or --overwrite it") from None
        place.delete(_MANIFEST)  # first, so that an interruption leaves nothing that looks whole
        for name in parts:
            place.delete(name)
        plan = Plan(url, manifest)
        plan.forget_attempts()
        file.seek(0)
        place.write(_LIST, file.read())
    place.write(_MANIFEST, json.dumps(asdict(manifest), indent=2).encode())
    return plan


def _write_list(paths: Iterator[bytes], file: Any, size: int) -> tuple[int, str]:
    """Write the list, one row group per partition; returns number and digest of the paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("path", pa.binary())])
    whole, pictures = hashlib.sha256(), 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(paths, size)):
            pictures += len(group)
            for path in group:
                whole.update(hashlib.sha256(path).digest())
            writer.write_table(pa.table({"path": group}, schema=schema))
    return pictures, whole.hexdigest()


def _parsed(data: bytes, url: str) -> dict[str, Any]:
    try:
        fields = json.loads(data)
        if fields["format"] == _FORMAT:
            return dict(fields)
    except (ValueError, KeyError, TypeError):
        pass
    raise PlanError(f"{url} holds a manifest that this version cannot read")


def _compare(found: dict[str, Any], now: Manifest, url: str) -> None:
    """Raise PlanError if a target's manifest is of another scan."""
    new = asdict(now)
    for field, title in (
        ("model", "the model"),
        ("view", "the view"),
        ("partition_size", "the partition size"),
    ):
        if found.get(field) != new[field]:
            raise PlanError(
                f"{url} holds results of {title} {_text(found.get(field))}, not {_text(new[field])}"
            )
    if found.get("list_sha256") != now.list_sha256:
        raise PlanError(
            f"{url} holds results of another list of pictures ({found.get('pictures')} pictures of "
            f"{found.get('source')}; now {now.pictures})"
        )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(part) for part in value.values())
    return str(value)
