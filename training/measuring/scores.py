"""Scores of pictures, computed by the code of the service.

Pictures of all sizes share batches and are prefetched by threads. Every result is appended to a
file at once, so that an interrupted run continues where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from model.detector import Detector, Part
from model.findings import Finding
from model.network import GammaModel
from model.views import Crops, Layout
from pictures.errors import PictureError
from pictures.findings import Thresholds, Verdict, View
from training.data.changes import Change, crop_center
from training.data.labels import LABELS, Kind, MaskLabel
from training.data.manifest import PictureUnreadableError, Row
from training.data.pixels import read_region
from training.errors import UserError
from training.measuring.metrics import MaskScore, measure_mask
from training.output import write_text

MAX_PIXELS = 64_000_000
"""Maximum width times height of a picture; the default of the service."""
MAX_TILES = 64
"""Maximum number of tiles of a picture; the default of the service."""
HEADS: tuple[Literal["ai", "manipulation"], ...] = ("ai", "manipulation")

_T = TypeVar("_T")
_THREADS = 2
_LEVELS = 256  # values of a uint8 mask


class MaskUnusableError(UserError):
    """A region mask is missing, unreadable or of the wrong size; the message names it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to score."""

    set_name: str
    row: Row
    folder: Path
    """Folder of the manifest; paths of the row are relative to it."""
    change: Change
    crop: int | None = None
    """Side of the central crop before the change, pixels."""
    masks: bool = True
    """Whether to compute mask metrics; impossible if the change moves pixels."""

    @property
    def key(self) -> tuple[str, ...]:
        """Key of the result."""
        row = self.row
        return (self.set_name, row.path, row.sha256, row.kind, self.change.name)


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Detection of a picture, with logits and mask statistics."""

    detection: Finding
    tile_logits: NDArray[np.float32]
    """Image logits of the tiles (N,), before pooling and calibration."""
    glance_logit: float | None
    """Image logit of the glance alone, before calibration; None without a prior."""
    histograms: dict[str, NDArray[np.int64]]
    """Pixel counts by label and mask level (2, 256), for each head with labels."""


class Record(BaseModel, extra="forbid", frozen=True):
    """A stored result of one picture."""

    set_name: str
    path: str
    sha256: str
    kind: Kind
    change: str

    @property
    def key(self) -> tuple[str, ...]:
        """Unique key of the record in a run."""
        return (self.set_name, self.path, self.sha256, self.kind, self.change)


class Result(Record):
    """One row of the per-picture table; None where a value does not exist."""

    generator: str | None
    source_id: str
    ai_generated: bool
    """Class label."""
    probability: float | None = None
    verdict: Verdict | None = None
    manipulated: bool | None = None
    """Whether the picture is called manipulated."""
    tiles: int | None = None
    ai: MaskScore | None = None
    manipulation: MaskScore | None = None
    error: str | None = None
    """Why the picture could not be scored."""


_R = TypeVar("_R", bound=Record)


def make_detector(
    model: GammaModel, *, device: str = "auto", dtype: str = "auto", tile_budget: int | None = None
) -> Detector:
    """Make a detector with the limits of the service; the network is frozen in place."""
    return Detector(
        model,
        device=device,
        dtype=dtype,
        max_pixels=MAX_PIXELS,
        max_tiles=MAX_TILES,
        tile_budget=tile_budget,
    )


def fingerprint(model: GammaModel, *settings: object) -> str:
    """Return a digest of a network, its config and further settings that determine scores."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def score(
    detector: Detector, jobs: Iterable[Job], view: View, *, batch: int = 8
) -> Iterator[tuple[Job, Score | PictureError]]:
    """Score pictures, in the order of the jobs.

    Args:
        detector: The network as served.
        jobs: Pictures to score.
        view: View to score with.
        batch: Minimum number of crops per batch.

    Yields:
        Each job with its score, or with the error of an unreadable picture.

    Raises:
        MaskUnusableError: A region mask does not fit its picture.
        OSError: A file cannot be opened.
    """
    waiting: list[tuple[Job, Crops | PictureError]] = []
    tiles = 0
    for job, crops in _read_ahead(lambda job: _load(detector, job, view), jobs, 2 * batch):
        waiting.append((job, crops))
        tiles += 0 if isinstance(crops, PictureError) else len(crops.tiles)
        if tiles >= batch:
            yield from _compute(detector, waiting)
            waiting, tiles = [], 0
    yield from _compute(detector, waiting)


def score_all(
    detector: Detector,
    jobs: Sequence[Job],
    view: View,
    kept: Path,
    record: type[_R],
    convert: Callable[[Job, Score | PictureError], _R],
    advance: Callable[[], object],
) -> list[_R]:
    """Score pictures, with a file as cache.

    Args:
        detector: The network as served.
        jobs: Pictures to score.
        view: View to score with.
        kept: Cache: JSON lines of records; pictures found in it are not scored again.
        record: Class of the records.
        convert: Makes a record from a score.
        advance: Called once per picture.

    Returns:
        Records in the order of the jobs.

    Raises:
        MaskUnusableError: A region mask does not fit its picture.
        OSError: A file cannot be opened or written.
    """
    known = _read_records(kept, record)
    missing = [job for job in jobs if job.key not in known]
    for _ in range(len(jobs) - len(missing)):
        advance()
    write_text("".join(r.model_dump_json() + "\n" for r in known.values()), kept)
    with kept.open("a", encoding="utf-8") as lines:
        for job, found in score(detector, missing, view):
            known[job.key] = convert(job, found)
            lines.write(known[job.key].model_dump_json() + "\n")
            lines.flush()
            advance()
    return [known[job.key] for job in jobs]


def identity(job: Job) -> dict[str, str]:
    """Return the key fields of the record of a job."""
    return dict(zip(Record.model_fields, job.key, strict=True))


def to_result(job: Job, found: Score | PictureError, thresholds: Thresholds) -> Result:
    """Make the row of a picture in the per-picture table."""
    fields: dict[str, object] = {
        **identity(job),
        "generator": job.row.generator,
        "source_id": job.row.source_id,
        "ai_generated": LABELS[job.row.kind].ai_generated,
    }
    if isinstance(found, PictureError):
        return Result.model_validate(fields | {"error": str(found)})
    detection = found.detection
    masks = {h: measure_mask(counts, thresholds.mask) for h, counts in found.histograms.items()}
    return Result.model_validate(
        fields
        | {
            "probability": detection.ai_probability,
            "verdict": detection.verdict,
            "manipulated": detection.manipulated,
            "tiles": detection.layout.tiles,
        }
        | masks
    )


def _read_records(file: Path, record: type[_R]) -> dict[tuple[str, ...], _R]:
    """Read the records of an earlier run, up to the first incomplete line."""
    known: dict[tuple[str, ...], _R] = {}
    if file.exists():
        for line in file.read_bytes().split(b"\n"):
            try:
                found = record.model_validate_json(line)
            except ValidationError:
                break
            known[found.key] = found
    return known


def _read_ahead(
    load: Callable[[Job], _T], jobs: Iterable[Job], ahead: int
) -> Iterator[tuple[Job, _T]]:
    """Apply `load` in threads, at most `ahead` jobs in advance."""
    remaining = iter(jobs)
    with ThreadPoolExecutor(_THREADS) as pool:
        started: list[tuple[Job, Future[_T]]] = [
            (job, pool.submit(load, job)) for job in islice(remaining, ahead)
        ]
        try:
            while started:
                job, future = started.pop(0)
                yield job, future.result()
                started += [(job, pool.submit(load, job)) for job in islice(remaining, 1)]
        finally:
            for _, future in started:
                future.cancel()


def _load(detector: Detector, job: Job, view: View) -> Crops | PictureError:
    try:
        pixels = detector.decode((job.folder / job.row.path).read_bytes())
    except PictureError as error:
        return error
    if job.crop is not None:
        pixels = crop_center(pixels, job.crop, job.crop)
    return detector.cut(job.change.apply(pixels), view)


def _compute(
    detector: Detector, waiting: list[tuple[Job, Crops | PictureError]]
) -> Iterator[tuple[Job, Score | PictureError]]:
    pictures = [crops for _, crops in waiting if not isinstance(crops, PictureError)]
    sights = detector.look(pictures)
    parts = [Part(crops, sight) for crops, sight in zip(pictures, sights, strict=True)]
    computed = iter(zip(parts, detector.forward(parts) if parts else (), strict=True))
    for job, crops in waiting:
        if isinstance(crops, PictureError):
            yield job, crops
            continue
        part, outputs = next(computed)
        detection = detector.conclude(crops.layout, outputs, part.sight)
        histograms = _compare(job, detection) if job.masks else {}
        glance = None if part.sight is None else part.sight.logit
        yield job, Score(detection, outputs.logits.numpy(), glance, histograms)


def _compare(job: Job, detection: Finding) -> dict[str, NDArray[np.int64]]:
    histograms: dict[str, NDArray[np.int64]] = {}
    for head in HEADS:
        truth = true_mask(job, head, detection.layout)
        if truth is not None:
            histograms[head] = count_levels(predicted_mask(detection, head), truth)
    return histograms


def predicted_mask(detection: Finding, head: str) -> NDArray[np.uint8]:
    """Return a head's mask in the analysed part (H, W), 255 means 1."""
    if detection.masks is None:
        raise ValueError("the view glance has no masks")
    mask = detection.masks.ai if head == "ai" else detection.masks.manipulation
    left, top, right, bottom = detection.layout.box
    return mask.values[top:bottom, left:right]


def true_mask(
    job: Job, head: Literal["ai", "manipulation"], layout: Layout
) -> NDArray[np.bool_] | None:
    """Return the true mask of a head in the analysed part (H, W); None without labels.

    Raises:
        MaskUnusableError: The region mask cannot be read or does not fit the picture.
    """
    label: MaskLabel = getattr(LABELS[job.row.kind], head)
    if label is MaskLabel.UNSUPERVISED:
        return None
    left, top, right, bottom = layout.box
    if label is not MaskLabel.REGION:
        return np.full((bottom - top, right - left), label is MaskLabel.ALL)
    file = job.folder / str(job.row.mask)
    try:
        region = read_region(file)
    except (OSError, PictureUnreadableError) as error:
        raise MaskUnusableError(f"{file}: {error}") from error
    if job.crop is not None:
        region = crop_center(region, job.crop, job.crop)
    if region.shape != (layout.height, layout.width):
        raise MaskUnusableError(
            f"{file}: {region.shape[1]} x {region.shape[0]} pixels, "
            f"but its picture {job.row.path} has {layout.width} x {layout.height}"
        )
    return region[top:bottom, left:right]


def count_levels(mask: NDArray[np.uint8], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count pixels by label and mask level (2, 256)."""
    codes = mask.astype(np.int64) + _LEVELS * truth
    return np.bincount(codes.ravel(), minlength=2 * _LEVELS).reshape(2, _LEVELS)
