"""Evaluation of a network on sets of pictures, in three format modes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel

from model.detector import Detector
from pictures.errors import PictureError
from pictures.findings import Thresholds, View
from training.data import provenance_counts
from training.data.changes import JPEG96, RAW, Change, Format, align, crop_center
from training.data.labels import Kind
from training.data.provenance_counts import ProvenanceCounts
from training.measuring import plots
from training.measuring.metrics import (
    Labels,
    MaskMeasures,
    MaskScore,
    Measures,
    Values,
    average_masks,
    bootstrap,
    measure,
    wilson,
)
from training.measuring.scores import (
    HEADS,
    Job,
    Result,
    Score,
    predicted_mask,
    score,
    score_all,
    to_result,
    true_mask,
)
from training.measuring.suites import PictureSet
from training.output import writing

Selected = Mapping[Format, Mapping[str, Sequence[Result]]]
"""Results by format mode and set."""

_GALLERY_PER_KIND = 3  # pictures
_MASK_FIELDS = [pa.field(n, pa.float64()) for n in MaskScore.model_fields]


class FalseAlarms(BaseModel, frozen=True):
    """False positives among the pictures of one source."""

    n: int
    called: float
    """Share at or above the stored threshold `ai_generated`."""
    suspected: float
    """Share at or above the stored threshold `uncertain`."""
    interval: tuple[float, float]
    """95 % Wilson interval of `called`."""


class SetReport(BaseModel, frozen=True):
    """Results of one set in one format mode."""

    overall: Measures | None
    """None if no picture could be read."""
    generators: dict[str, Measures]
    """Pictures of one generator against the pictures that are not AI-generated."""
    matched: dict[str, Measures] = {}
    """Whole pictures of each source that has both classes, by the last part of its folder."""
    sources: dict[str, FalseAlarms]
    """By folder part of the source id; `all`: all together."""
    masks: dict[str, dict[str, MaskMeasures]]
    """By head and kind; `all`: all kinds together."""
    unreadable: tuple[str, ...]
    """Pictures left out, with reasons."""


class Summary(BaseModel, frozen=True):
    """Results of an evaluation."""

    checkpoint: str
    name: str
    version: str
    backbone: str
    trained: bool
    dtype: str
    view: View
    crop: int | None
    """Side of the central crop of every picture, pixels; None: not cropped."""
    thresholds: dict[str, float]
    resamples: int
    formats: dict[Format, dict[str, SetReport]]
    provenance: dict[str, dict[str, ProvenanceCounts]] = {}
    """Files whose metadata states their origin, by set and class; no score uses them."""


def evaluate(
    detector: Detector,
    sets: Sequence[PictureSet],
    out: Path,
    kept: Path,
    *,
    checkpoint: str,
    view: View,
    crop: int | None,
    resamples: int,
    advance: Callable[[], object],
    modes: Sequence[Format] = tuple(Format),
) -> Summary:
    """Score sets of pictures and write `pictures.parquet` and the plots.

    Args:
        detector: The network as served.
        sets: Sets of pictures.
        out: Folder for table and plots.
        kept: File that caches the results (see `score_all`).
        checkpoint: Name of the checkpoint, for the report.
        view: View to score with.
        crop: Side of the central crop of every picture, pixels.
        resamples: Number of bootstrap resamples.
        advance: Called once per picture and distinct change of `modes`.
        modes: Format modes.

    Returns:
        The results.

    Raises:
        MaskUnusableError: A region mask does not fit its picture.
        OSError: A file cannot be opened.
    """
    changes = changes_of(modes)
    jobs = [
        Job(s.name, row, s.folder, change, crop)
        for s in sets
        for change in changes
        for row in s.rows
    ]
    thresholds = detector.info.thresholds
    convert = partial(to_result, thresholds=thresholds)
    found = score_all(detector, jobs, view, kept, Result, convert, advance)
    results = {result.key: result for result in found}
    selected = {
        mode: {
            s.name: [results[Job(s.name, row, s.folder, align(row, mode)).key] for row in s.rows]
            for s in sets
        }
        for mode in modes
    }
    _write_table(selected, out / "pictures.parquet")
    samples = {
        str(mode): {name: collect(found)[:2] for name, found in by_set.items()}
        for mode, by_set in selected.items()
    }
    plots.draw_roc(samples, out / "roc.png")
    plots.draw_reliability(samples, out / "reliability.png")
    plots.draw_scores(samples, (thresholds.uncertain, thresholds.ai_generated), out / "scores.png")
    _draw_gallery(
        detector, [job for job in jobs if job.change is changes[0]], view, out / "masks.png"
    )
    info = detector.info
    return Summary(
        checkpoint=checkpoint,
        name=info.name,
        version=info.version,
        backbone=info.backbone,
        trained=info.trained,
        dtype=info.dtype,
        view=view,
        crop=crop,
        thresholds=asdict(thresholds),
        resamples=resamples,
        formats={
            mode: {name: _report(found, thresholds, resamples) for name, found in by_set.items()}
            for mode, by_set in selected.items()
        },
        provenance={s.name: provenance_counts.count(s.rows, s.folder) for s in sets},
    )


def changes_of(modes: Sequence[Format]) -> list[Change]:
    """Return the changes that format modes need, for every picture."""
    needed = [RAW] if set(modes) != {Format.JPEG96} else []
    return [*needed, JPEG96] if set(modes) != {Format.RAW} else needed


def collect(results: Sequence[Result]) -> tuple[Labels, Values, list[str]]:
    """Return labels (n,), probabilities (n,) and source ids of the readable pictures."""
    read = [r for r in results if r.probability is not None]
    labels = np.array([r.ai_generated for r in read], bool)
    probabilities = np.array([r.probability for r in read], np.float64)
    return labels, probabilities, [r.source_id for r in read]


def _report(results: Sequence[Result], thresholds: Thresholds, resamples: int) -> SetReport:
    threshold = thresholds.ai_generated
    generators = sorted({r.generator for r in results if r.generator and r.ai_generated})
    parts = {
        name: _measure(
            [r for r in results if r.generator == name or not (r.generator or r.ai_generated)],
            threshold,
            resamples,
        )
        for name in generators
    }
    masks: dict[str, dict[str, MaskMeasures]] = {}
    for head in HEADS:
        for kind in ("all", *Kind):
            scores = [getattr(r, head) for r in results if kind in ("all", r.kind)]
            measures = average_masks([s for s in scores if s is not None])
            if measures is not None:
                masks.setdefault(head, {})[str(kind)] = measures
    return SetReport(
        overall=_measure(results, threshold, resamples),
        generators={name: found for name, found in parts.items() if found is not None},
        matched=_matched(results, threshold, resamples),
        sources=_false_alarms(results, thresholds),
        masks=masks,
        unreadable=tuple(f"{r.path}: {r.error}" for r in results if r.error is not None),
    )


def _measure(results: Sequence[Result], threshold: float, resamples: int) -> Measures | None:
    labels, probabilities, originals = collect(results)
    if not len(labels):
        return None
    intervals = bootstrap(labels, probabilities, threshold, originals, resamples=resamples)
    return measure(labels, probabilities, threshold).model_copy(update={"intervals": intervals})


def _matched(results: Sequence[Result], threshold: float, resamples: int) -> dict[str, Measures]:
    by_source: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.kind in (Kind.AUTHENTIC, Kind.SYNTHETIC):
            by_source[PurePosixPath(result.source_id).parent.name].append(result)
    both = {
        source: found for source, found in by_source.items() if len({r.kind for r in found}) == 2
    }
    measured = {name: _measure(found, threshold, resamples) for name, found in sorted(both.items())}
    return {name: found for name, found in measured.items() if found is not None}


def _false_alarms(results: Sequence[Result], thresholds: Thresholds) -> dict[str, FalseAlarms]:
    scores: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if result.probability is not None and not result.ai_generated:
            folder = str(PurePosixPath(result.source_id).parent)
            for name in ("all", folder):
                scores[name].append(result.probability)
    return {
        name: FalseAlarms(
            n=len(found),
            called=float(np.mean(np.array(found) >= thresholds.ai_generated)),
            suspected=float(np.mean(np.array(found) >= thresholds.uncertain)),
            interval=wilson(sum(p >= thresholds.ai_generated for p in found), len(found)),
        )
        for name, found in sorted(scores.items())
    }


def _write_table(selected: Selected, file: Path) -> None:
    """Write one row per picture and format mode; mask fields become columns such as `ai.f1`."""
    text = ("set_name", "path", "sha256", "kind", "generator", "source_id", "change")
    schema = pa.schema(
        [
            ("mode", pa.string()),
            *((name, pa.string()) for name in text),
            ("ai_generated", pa.bool_()),
            ("probability", pa.float64()),
            ("verdict", pa.string()),
            ("manipulated", pa.bool_()),
            ("tiles", pa.int32()),
            *((head, pa.struct(_MASK_FIELDS)) for head in HEADS),
            ("error", pa.string()),
        ]
    )
    rows = [
        {"mode": str(mode), **result.model_dump(mode="json")}
        for mode, by_set in selected.items()
        for results in by_set.values()
        for result in results
    ]
    with writing(file) as unfinished:
        pq.write_table(pa.Table.from_pylist(rows, schema).flatten(), unfinished)


def _draw_gallery(detector: Detector, jobs: Sequence[Job], view: View, file: Path) -> None:
    """Draw the first pictures of each kind with true and predicted masks."""
    chosen = [
        job
        for kind in Kind
        for job in [job for job in jobs if job.row.kind is kind][:_GALLERY_PER_KIND]
    ]
    rows = [
        (f"{job.row.kind}: {Path(job.row.path).name}", _panels(detector, job, found))
        for job, found in score(detector, chosen, view)
        if not isinstance(found, PictureError)
    ]
    columns = (
        "picture",
        "AI, true",
        "AI, predicted",
        "manipulated, true",
        "manipulated, predicted",
    )
    if rows:
        plots.draw_gallery(rows, columns, file)


def _panels(detector: Detector, job: Job, found: Score) -> list[NDArray[np.uint8] | None]:
    """Return picture and masks, cropped to the analysed part."""
    layout = found.detection.layout
    pixels = detector.decode((job.folder / job.row.path).read_bytes())
    if job.crop is not None:
        pixels = crop_center(pixels, job.crop, job.crop)
    left, top, right, bottom = layout.box
    panels: list[NDArray[np.uint8] | None] = [pixels[top:bottom, left:right]]
    for head in HEADS:
        truth = true_mask(job, head, layout)
        panels.append(None if truth is None else truth.astype(np.uint8) * 255)
        panels.append(predicted_mask(found.detection, head))
    return panels
