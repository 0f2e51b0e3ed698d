"""Scores of picture files, computed by the worker's pipeline without Redis."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

from app.contract.details import detection_error
from app.contract.schemas import (
    Detection,
    DetectionError,
    ErrorCode,
    Head,
    ImageInfo,
    MaskInfo,
    Status,
    ViewInfo,
)
from app.contract.store import Store
from model.detector import Detector
from model.engine import ModelOutputError
from model.findings import Finding
from pictures.decoders import Decoders
from pictures.errors import PictureError
from pictures.findings import View
from pictures.header import read_header
from worker.pipeline import Pipeline, Result
from worker.processing import Outcome, Processor, describe
from worker.provenance import FileStatements

FILE_UNREADABLE = "file_unreadable"
"""Code of a file that does not exist or must not be read."""
_READERS = 16  # files read at the same time

Row = dict[str, Any]
"""Result of one picture: columns and values; a column without a value is missing."""


class UnreadableFileError(Exception):
    """A file does not exist, must not be read, or is no regular file."""


class TooLargeFileError(Exception):
    """A file is larger than allowed."""


class Scorer:
    """Scores files. Not thread-safe, but reads, decodes and computes at the same time."""

    def __init__(
        self,
        detector: Detector,
        decoders: Decoders,
        read: Callable[[bytes], bytes],
        *,
        view: View,
        max_batch: int,
        max_pixels: int,
        threads: int,
    ) -> None:
        """Start the threads.

        Args:
            detector: Computes the scores.
            decoders: Decode the pictures.
            read: Reads the file of a path, in several threads; raises `UnreadableFileError` or
                `TooLargeFileError` if only this file is the cause. Another error ends the scorer.
            view: View of each picture.
            max_batch: Maximum number of crops in a forward pass.
            max_pixels: Maximum width times height of a picture.
            threads: Number of threads that decode, and of threads that conclude.
        """
        info = describe(detector, "scan")
        self._changed = threading.Condition()  # guards the next three
        self._rows: dict[str, Row] = {}
        self._failed = 0  # rows without a score
        self._failure: Exception | None = None
        self._files = _Files(read, view, max_pixels, self._give_up)
        processor = _FileProcessor(detector, info, cast(Store, self._files), decoders)
        self._pipeline = Pipeline(
            processor,
            max_batch=max_batch,
            window=0.0,
            threads=threads,
            deliver=self._deliver,
            give_up=self._give_up,
        )

    def score(
        self, paths: Sequence[bytes], report: Callable[[int, int], None] = lambda done, failed: None
    ) -> list[Row]:
        """Score files.

        Args:
            paths: Paths as `read` takes them.
            report: Called with the number of finished and of failed pictures, now and then.

        Returns:
            One row per path, in order.

        Raises:
            ModelSickError: If the model is sick.
            DeviceError: If the device is unusable.
            Exception: As `read` raised it.
        """
        names = [str(index) for index in range(len(paths))]
        self._rows, self._failed = {}, 0
        self._files.paths = dict(zip(names, paths, strict=True))
        for start in range(0, len(names), _READERS):
            self._pipeline.feed(names[start : start + _READERS])
        with self._changed:
            while self._failure is None and len(self._rows) < len(names):
                report(len(self._rows), self._failed)
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
        return [self._rows[name] for name in names]

    def close(self) -> None:
        """End the threads; waits for pictures in progress."""
        self._pipeline.close()

    def _deliver(self, results: Mapping[str, Result]) -> None:
        rows = {name: self._row(name, result) for name, result in results.items()}
        with self._changed:
            self._rows |= rows
            self._failed += sum("error_code" in row for row in rows.values())
            self._changed.notify()

    def _give_up(self, error: Exception) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify()

    def _row(self, name: str, result: Result) -> Row:
        known = self._files.known.pop(name, {})
        if isinstance(result, Outcome):
            return known | _findings(result.detection)
        if result is None:  # `_Files` has set the error
            return known
        invalid = isinstance(result, ModelOutputError)
        code = ErrorCode.MODEL_OUTPUT_INVALID if invalid else ErrorCode.PROCESSING_FAILED
        return known | _error(detection_error(code))


def unscored(code: str, detail: str) -> Row:
    """The row of a picture without a score."""
    return {"status": Status.FAILED.value, "error_code": code, "error_detail": detail}


def _error(error: DetectionError) -> Row:
    return unscored(error.code.value, error.detail)


def _findings(detection: Detection) -> Row:
    if detection.error is not None:
        return _error(detection.error)
    timings, masks = detection.timings, detection.masks
    heads = () if masks is None else ((Head.AI, masks.ai), (Head.MANIPULATION, masks.manipulation))
    return {
        "status": detection.status.value,
        "ai_probability": detection.ai_probability,
        "verdict": detection.verdict and detection.verdict.value,
        "manipulated": detection.manipulated,
        "not_judged": detection.not_judged and detection.not_judged.value,
        "notes": [note.value for note in detection.notes],
        "regions": [row for head, mask in heads for row in _regions(head, mask)],
        "seconds": timings and timings.decode + timings.forward + timings.encode,
    }


def _regions(head: Head, mask: MaskInfo) -> Iterable[Row]:
    for region in mask.regions:
        x, y, width, height = region.box
        box = {"x": x, "y": y, "width": width, "height": height}
        yield {"head": head.value, **box, "area": region.area, "score": region.score}


class _Files:
    """Stands in for the store: fetches pictures from files."""

    def __init__(
        self,
        read: Callable[[bytes], bytes],
        view: View,
        max_pixels: int,
        give_up: Callable[[Exception], None],
    ) -> None:
        self.paths: dict[str, bytes] = {}
        self.known: dict[str, Row] = {}
        """What is known of a picture before it is decoded, or why it cannot be."""
        self._read = read
        self._view = ViewInfo(mode=view)
        self._max_pixels = max_pixels
        self._give_up = give_up
        self._ended = False
        self._contents: dict[str, bytes] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    def start(self, names: Sequence[str]) -> dict[str, Detection]:
        """Read files; those that cannot be pictures are missing in the result."""
        if self._ended:
            return {}
        try:
            found = list(self._readers.map(self._open, names))
        except Exception as error:  # the bucket is down, or a bug
            self._ended = True
            self._give_up(error)
            return {}
        return {record.id: record for record in found if record is not None}

    def get_images(self, names: Sequence[str]) -> list[bytes]:
        """Return the contents of started files, once."""
        return [self._contents.pop(name) for name in names]

    def _open(self, name: str) -> Detection | None:
        known = self.known[name] = {}
        try:
            data = self._read(self.paths[name])
        except UnreadableFileError as error:
            known |= unscored(FILE_UNREADABLE, str(error))
            return None
        except TooLargeFileError as error:
            known |= unscored(ErrorCode.UPLOAD_TOO_LARGE.value, str(error))
            return None
        known |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if not data:
            known |= unscored(ErrorCode.FILE_EMPTY.value, "The file is empty.")
            return None
        try:
            header = read_header(data, max_pixels=self._max_pixels)
        except PictureError as error:
            known |= unscored(error.code, error.detail)
            return None
        known |= {"width": header.width, "height": header.height}
        self._contents[name] = data
        now = datetime.now(UTC)
        image = ImageInfo(**known, format=header.format)
        return Detection(id=name, image=image, view=self._view, created_at=now, expires_at=now)


class _NoStatements(FileStatements):
    """Stands in for the statements of a file, which are not read."""

    def __init__(self) -> None:
        self.pixels = None

    def added_to(self, record: Detection) -> Detection:
        """Return the record as it is."""
        return record


class _FileProcessor(Processor):
    """Processor that reads no provenance and encodes no masks."""

    def _read_statements(self, picture: bytes) -> FileStatements:
        return _NoStatements()

    def _encode_masks(self, finding: Finding) -> dict[Head, bytes]:
        return {}
