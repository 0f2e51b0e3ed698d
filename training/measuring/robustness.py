"""Robustness of scores to compression, blur, noise, resizing, crops and screenshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from model.detector import Detector
from pictures.findings import View
from training.data.changes import DEGRADATIONS, RAW
from training.errors import UserError
from training.measuring import plots
from training.measuring.evaluate import collect
from training.measuring.metrics import Measures, measure
from training.measuring.report import table
from training.measuring.scores import Job, Result, score_all, to_result
from training.measuring.suites import PictureSet
from training.output import writing


class NothingReadableError(UserError):
    """None of the pictures can be read."""


class Condition(BaseModel, frozen=True):
    """Result of one degradation."""

    series: str
    level: float
    change: str
    measures: Measures
    flip_rate: float
    """Share of pictures whose verdict differs from that of the clean picture."""


class Robustness(BaseModel, frozen=True):
    """Results of all degradations."""

    checkpoint: str
    name: str
    version: str
    view: View
    clean: Measures
    conditions: tuple[Condition, ...]
    worst: str
    """Degradation with the lowest balanced accuracy at 0.5 (accuracy if a class is missing)."""
    right_throughout: float
    """Share of pictures on the correct side of 0.5, clean and under every degradation."""
    ever_flipped: float
    """Share of pictures whose verdict changes under any degradation."""
    unreadable: tuple[str, ...]


def measure_robustness(
    detector: Detector,
    sets: Sequence[PictureSet],
    out: Path,
    kept: Path,
    *,
    checkpoint: str,
    view: View,
    crop: int | None,
    advance: Callable[[], object],
) -> Robustness:
    """Score all pictures clean and degraded; write `pictures.parquet` and `robustness.png`.

    Args:
        detector: The network as served.
        sets: Sets of pictures, pooled.
        out: Folder for table and plot.
        kept: File that caches the results (see `score_all`).
        checkpoint: Name of the checkpoint, for the report.
        view: View to score with.
        crop: Side of the central crop of every picture, pixels.
        advance: Called once per picture and degradation.

    Raises:
        NothingReadableError: No picture could be read.
        OSError: A file cannot be opened.
    """
    changes = [RAW, *(change for levels in DEGRADATIONS.values() for change in levels.values())]
    pictures = [(s, row) for s in sets for row in s.rows]
    jobs = [
        Job(s.name, row, s.folder, change, crop, masks=False)
        for change in changes
        for s, row in pictures
    ]
    convert = partial(to_result, thresholds=detector.info.thresholds)
    results = score_all(detector, jobs, view, kept, Result, convert, advance)
    _write_table(results, out / "pictures.parquet")
    read: dict[str, list[Result]] = {change.name: [] for change in changes}
    for result in results:
        if result.error is None:  # unreadable pictures are so in all conditions
            read[result.change].append(result)
    clean = read[RAW.name]
    if not clean:
        raise NothingReadableError("none of the pictures can be read")
    threshold = detector.info.thresholds.ai_generated
    flipped = {
        name: [new.verdict != old.verdict for new, old in zip(found, clean, strict=True)]
        for name, found in read.items()
    }
    conditions = tuple(
        Condition(
            series=name,
            level=level,
            change=change.name,
            measures=_measure(read[change.name], threshold),
            flip_rate=float(np.mean(flipped[change.name])),
        )
        for name, levels in DEGRADATIONS.items()
        for level, change in levels.items()
    )
    right = [[(r.probability or 0) >= 0.5 for r in found] for found in read.values()]
    truths = [r.ai_generated for r in clean]
    report = Robustness(
        checkpoint=checkpoint,
        name=detector.info.name,
        version=detector.info.version,
        view=view,
        clean=_measure(clean, threshold),
        conditions=conditions,
        worst=min(conditions, key=lambda c: accuracy(c.measures)).change,
        right_throughout=float(np.mean(np.all(np.equal(right, truths), axis=0))),
        ever_flipped=float(np.mean(np.any(list(flipped.values()), axis=0))),
        unreadable=tuple(
            f"{r.path}: {r.error}" for r in results if r.error and r.change == RAW.name
        ),
    )
    _draw(report, out / "robustness.png")
    return report


def to_markdown(report: Robustness) -> str:
    """Return the full report."""
    lines = [
        f"# {report.name} {report.version}: robustness",
        "",
        f"Checkpoint `{report.checkpoint}`.",
        "",
        to_short_markdown(report),
    ]
    return "\n".join(lines)


def to_short_markdown(report: Robustness) -> str:
    """Return the table of all conditions with a summary."""
    clean = Condition(series="", level=0, change="clean", measures=report.clean, flip_rate=0)
    rows = [
        [
            f"**{c.change}**" if c.change == report.worst else c.change,
            f"{accuracy(c.measures):.3f}",
            "" if c.measures.auc is None else f"{c.measures.auc:.3f}",
            f"{c.measures.accuracy:.3f}",
            f"{c.flip_rate:.3f}",
        ]
        for c in (clean, *report.conditions)
    ]
    lines = [
        f"View {report.view}, {report.clean.n} pictures "
        f"({report.clean.n_ai} AI-generated). Worst: {report.worst}. On the correct side of 0.5, "
        f"clean and under every degradation: {report.right_throughout:.3f} of the pictures. "
        f"Verdict changes under any degradation: {report.ever_flipped:.3f} of the pictures.",
        "",
        *table(
            (
                "degradation",
                "bal. acc. at 0.5",
                "AUC",
                "acc. at the stored threshold",
                "verdicts flipped",
            ),
            rows,
        ),
        *(f"\nUnreadable, left out: {line}" for line in report.unreadable),
    ]
    return "\n".join(lines) + "\n"


def accuracy(measures: Measures) -> float:
    """Return the balanced accuracy at 0.5, or the accuracy if a class is missing."""
    balanced = measures.balanced_accuracy_at_half
    return measures.accuracy_at_half if balanced is None else balanced


def _measure(results: Sequence[Result], threshold: float) -> Measures:
    labels, probabilities, _ = collect(results)
    return measure(labels, probabilities, threshold)


def _draw(report: Robustness, file: Path) -> None:
    series = {}
    for name in DEGRADATIONS:
        shown = [
            ("clean", report.clean, 0.0),
            *(
                (f"{c.level:g}", c.measures, c.flip_rate)
                for c in report.conditions
                if c.series == name
            ),
        ]
        curves = {
            "balanced accuracy at 0.5": [accuracy(measures) for _, measures, _ in shown],
            "AUC": [np.nan if m.auc is None else m.auc for _, m, _ in shown],
            "verdicts flipped": [flips for *_, flips in shown],
        }
        series[name] = ([level for level, *_ in shown], curves)
    plots.draw_curves(series, file)


def _write_table(results: Sequence[Result], file: Path) -> None:
    """Write one row per picture and degradation."""
    columns = ("set_name", "path", "generator", "source_id", "change", "verdict", "error")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in columns),
            ("ai_generated", pa.bool_()),
            ("probability", pa.float64()),
        ]
    )
    rows = [result.model_dump(mode="json", include=set(schema.names)) for result in results]
    with writing(file) as unfinished:
        pq.write_table(pa.Table.from_pylist(rows, schema), unfinished)
