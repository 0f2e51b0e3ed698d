"""Picture files of a folder, and what happens to each of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gamma_client.calls import ENDED
from gamma_client.errors import DetectionFailedError, GammaError
from gamma_client.models import Detection

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"),
    )
)
"""Suffixes of picture files, lower case."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        path: its path.
        detection: its record, once accepted; None if it was refused or deleted meanwhile.
        error: why there is no result: ServiceError (refused), DetectionFailedError (accepted, but
            failed or expired), OSError (not readable), DeletedError; None if there is one.
    """

    path: Path
    detection: Detection | None = None
    error: GammaError | OSError | None = None

    @classmethod
    def of(cls, path: Path, detection: Detection) -> Outcome:
        """The outcome of a file whose detection has this record."""
        failed = detection.status in ENDED and detection.status != "succeeded"
        return cls(path, detection, DetectionFailedError(detection) if failed else None)

    def result(self) -> Detection:
        """The record, whose status is `succeeded`.

        Raises:
            GammaError, OSError: The `error`, if there is one.
        """
        if self.detection is None or self.error is not None:
            raise self.error or GammaError("there is no result yet")
        return self.detection

    @property
    def waits_for(self) -> str | None:
        """Id of the detection, if it has not ended."""
        if self.detection is None or self.detection.status in ENDED:
            return None
        return self.detection.id


@dataclass
class Progress:
    """Numbers of files so far.

    Attributes:
        total: in the folder.
        accepted: uploaded and accepted by the service.
        succeeded: have a result.
        failed: have none: refused, unreadable, failed, expired or deleted.
    """

    total: int = 0
    accepted: int = 0
    succeeded: int = 0
    failed: int = 0

    def add(self, ended: Sequence[Outcome]) -> None:
        """Count these outcomes."""
        failed = sum(outcome.error is not None for outcome in ended)
        self.failed += failed
        self.succeeded += len(ended) - failed

    @property
    def finished(self) -> int:
        """Files that nothing more will happen to."""
        return self.succeeded + self.failed


def find_pictures(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Find the picture files of a folder and its subfolders by their suffixes, in order.

    Links to files are followed, links to folders are not. Hidden files and folders, whose names
    begin with a dot, are left out. Only the names of one folder at a time are in memory.

    Raises:
        OSError: If a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for here, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(here, name)
            hidden = name.startswith(".")
            if not hidden and path.suffix.lower() in SUFFIXES and path.is_file():
                yield path


class Options(NamedTuple):
    """How the pictures of a folder are examined."""

    view: str | None = None
    frames: int | None = None


def key_of(path: Path, folder: Path, run: str, options: Options) -> str:
    """Idempotency key of a file's upload: the same for the same name and bytes in the same run.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    name = os.fsencode(path.relative_to(folder))
    parts = (run.encode(), repr(tuple(options)).encode(), name, content)
    # The length of each part, so that no two uploads have the same key.
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()
