"""Choice of temperature, tile pooling and thresholds on validation pictures.

They are chosen for the view of the service, on pictures used neither for training nor for tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize_scalar

from model.config import Pooling
from model.detector import Detector
from model.pooling import combine
from model.pooling import pool as pool_tiles
from pictures.errors import PictureError
from pictures.findings import Thresholds, View
from training.data.labels import LABELS, Kind, MaskLabel
from training.errors import UserError
from training.measuring.calibration_report import (
    FALSE_POSITIVE_RATES,
    Calibration,
    GlanceCalibration,
    PoolingReport,
)
from training.measuring.metrics import Labels, Values, area_under_roc, class_weights, measure_mask
from training.measuring.scores import HEADS, Job, Record, Score, identity, score_all

MARKED_FALSE_POSITIVE_RATE = 0.005
"""Maximum share of marked pixels in masks that are empty by label."""
MANIPULATED_FALSE_POSITIVE_RATE = 0.05
"""Maximum share of unaltered pictures that are called manipulated."""

_TEMPERATURES = (0.01, 100.0)
_PART_OFFSETS = tuple(-float(step) for step in range(11))
_MARKED = 0.5
"""Mask threshold after adding the mask offsets."""


class CalibrationError(UserError):
    """Calibration is not possible with these pictures; the message says why."""


class Sample(Record):
    """Scores of one picture for calibration."""

    logits: tuple[float, ...] = ()
    """Image logits of the tiles (N,)."""
    glance_logit: float | None = None
    """Image logit of the glance alone; None without a prior."""
    histograms: dict[str, list[list[int]]] = Field(default_factory=dict)
    """Pixel counts by label and mask level (2, 256), by head."""
    error: str | None = None
    """Why the picture could not be scored."""

    @property
    def ai_generated(self) -> bool:
        """Class label."""
        return LABELS[self.kind].ai_generated

    def counts(self, head: str) -> NDArray[np.int64] | None:
        """Return the histogram (2, 256) of a head; None without labels."""
        found = self.histograms.get(head)
        return None if found is None else np.array(found, np.int64)


def gather(
    detector: Detector, jobs: Sequence[Job], view: View, kept: Path, advance: Callable[[], object]
) -> list[Sample]:
    """Score validation pictures; `kept` caches the results (see `score_all`).

    Raises:
        CalibrationError: A picture belongs to the training or test split.
        MaskUnusableError: A region mask does not fit its picture.
        OSError: A file cannot be opened.
    """
    for job in jobs:
        if job.row.split in ("train", "test"):
            raise CalibrationError(
                f"{job.row.path} belongs to split {job.row.split}; calibration uses only "
                "validation pictures"
            )
    return score_all(detector, jobs, view, kept, Sample, _to_sample, advance)


def calibrate(
    samples: Sequence[Sample],
    *,
    view: View,
    pooling: Pooling,
    part_offset: float | None,
    temperature: float,
    thresholds: Thresholds,
) -> Calibration:
    """Choose pooling, part offset, temperature and thresholds.

    The pooling and the offset with the best likelihood after temperature scaling are chosen.

    Args:
        samples: Scores of validation pictures.
        view: View of the scores.
        pooling: Stored pooling, for comparison.
        part_offset: Stored offset, for comparison.
        temperature: Stored temperature, for comparison.
        thresholds: Stored thresholds; kept where none can be chosen.

    Raises:
        CalibrationError: A class is missing.
    """
    unreadable = tuple(f"{s.path}: {s.error}" for s in samples if s.error is not None)
    samples = [s for s in samples if s.error is None]
    labels = np.array([s.ai_generated for s in samples], bool)
    if not labels.any() or labels.all():
        raise CalibrationError(
            f"{labels.sum()} AI-generated pictures and {(~labels).sum()} others; both are needed"
        )
    reports = {name: _try_pooling(samples, labels, name) for name in get_args(Pooling)}
    best: Pooling = min(reports, key=lambda name: reports[name].nll)
    chosen, offset = reports[best].temperature, reports[best].part_offset
    probabilities = _sigmoid(pool(samples, best, offset) / chosen)
    negatives, positives = probabilities[~labels], probabilities[labels]
    at_rate = {
        name: threshold_at(negatives, positives, rate)
        for name, rate in FALSE_POSITIVE_RATES.items()
    }
    notes = [
        f"{len(negatives)} negatives are too few for a false positive rate of {rate:.0%}: "
        f"threshold {name} is above the highest of them"
        for name, rate in FALSE_POSITIVE_RATES.items()
        if len(negatives) * rate < 1
    ]
    if not _TEMPERATURES[0] * 1.01 < chosen < _TEMPERATURES[1] * 0.99:
        notes.append(
            f"the temperature {chosen:.3g} is at the limit of its range: the classes are "
            "perfectly separated, or not at all"
        )
    masks = {head: found for head in HEADS if (found := _choose_mask(samples, head)) is not None}
    if len(masks) < len(HEADS):
        notes.append("no region masks for a head: its offset is not calibrated")
    manipulation = masks["manipulation"][0] if "manipulation" in masks else thresholds.mask
    area = _choose_area(samples, manipulation)
    if area is None:
        notes.append("no unaltered or no manipulated pictures: manipulated_area is unchanged")
    glance = _calibrate_glance(samples)
    return Calibration(
        view=view,
        pictures={str(k): n for k in Kind if (n := sum(s.kind is k for s in samples))},
        unreadable=unreadable,
        poolings=reports,
        pooling=best,
        part_offset=offset,
        temperature=chosen,
        nll_before=_likelihood(labels, pool(samples, pooling, part_offset), temperature),
        at_rate=at_rate,
        false_positive_rates={n: float(np.mean(negatives >= t)) for n, t in at_rate.items()},
        true_positive_rates={n: float(np.mean(positives >= t)) for n, t in at_rate.items()},
        mask_levels={head: level for head, (level, _) in masks.items()},
        mask_f1={head: f1 for head, (_, f1) in masks.items()},
        thresholds={
            "uncertain": at_rate["uncertain"],
            "ai_generated": at_rate["ai_generated"],
            "mask": _MARKED if masks else thresholds.mask,
            "manipulated_area": thresholds.manipulated_area if area is None else area,
        },
        glance=glance,
        whole_offset=None if offset is None or glance is None else _whole_offset(glance),
        notes=tuple(notes),
    )


def pool(samples: Sequence[Sample], pooling: Pooling, part_offset: float | None) -> Values:
    """Compute the logit of each sample like the detector; returns (n,)."""
    pooled = torch.stack([pool_tiles(torch.as_tensor(s.logits), pooling) for s in samples])
    glances = [0.0 if s.glance_logit is None else s.glance_logit for s in samples]
    return _combine(pooled, torch.tensor(glances), part_offset)


def _combine(pooled: torch.Tensor, glances: torch.Tensor, part_offset: float | None) -> Values:
    return combine(pooled, glances, part_offset).numpy().astype(np.float64)


def threshold_at(negatives: Values, positives: Values, rate: float) -> float:
    """Return the threshold for a false positive rate of at most `rate`.

    It is the midpoint between the highest negative below it and the next score above that (or 1),
    so that it does not depend on rounding.

    Args:
        negatives: Probabilities of the pictures that are not AI-generated (n,).
        positives: Probabilities of the AI-generated pictures (m,).
        rate: False positive rate, in [0, 1).
    """
    below = np.sort(negatives)[::-1][_allowed(rate, len(negatives))]
    above = np.concatenate([negatives, positives])
    return float(below + np.min(above[above > below], initial=1.0)) / 2


def _allowed(rate: float, count: int) -> int:
    return int(rate * count + 1e-9)  # guards against rounding just below an integer


def fit_temperature(labels: Labels, logits: Values) -> float:
    """Return the temperature (0.01 to 100) with the best balanced likelihood of logits (n,)."""
    found = minimize_scalar(
        lambda log_t: _likelihood(labels, logits, math.exp(log_t)),
        bounds=(math.log(_TEMPERATURES[0]), math.log(_TEMPERATURES[1])),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(found.x)


def _to_sample(job: Job, found: Score | PictureError) -> Sample:
    if isinstance(found, PictureError):
        return Sample.model_validate(identity(job) | {"error": str(found)})
    return Sample.model_validate(
        {
            **identity(job),
            "logits": found.tile_logits.tolist(),
            "glance_logit": found.glance_logit,
            "histograms": {head: counts.tolist() for head, counts in found.histograms.items()},
        }
    )


def _try_pooling(samples: Sequence[Sample], labels: Labels, pooling: Pooling) -> PoolingReport:
    pooled = torch.from_numpy(pool(samples, pooling, None))
    glances = [s.glance_logit for s in samples if s.glance_logit is not None]
    offsets = _PART_OFFSETS if len(glances) == len(samples) else (None,)
    reports = []
    for offset in offsets:
        logits = _combine(pooled, torch.tensor(glances), offset)
        temperature = fit_temperature(labels, logits)
        reports.append(
            PoolingReport(
                part_offset=offset,
                temperature=temperature,
                nll=_likelihood(labels, logits, temperature),
                auc=area_under_roc(labels, logits, np.ones(len(labels))),
            )
        )
    return min(reports, key=lambda report: report.nll)


def _whole_offset(glance: GlanceCalibration) -> float:
    """Return the offset with which a picture is marked whole at 5 % false positives."""
    middle = glance.at_rate["middle"]
    return -glance.temperature * math.log(middle / (1 - middle))


def _calibrate_glance(samples: Sequence[Sample]) -> GlanceCalibration | None:
    """Calibrate the glance on whole pictures; None without a prior or if a class is missing."""
    whole = [
        (s.ai_generated, s.glance_logit)
        for s in samples
        if s.kind in (Kind.AUTHENTIC, Kind.SYNTHETIC) and s.glance_logit is not None
    ]
    labels = np.array([label for label, _ in whole], bool)
    if not labels.any() or labels.all():
        return None
    logits = np.array([logit for _, logit in whole], np.float64)
    temperature = fit_temperature(labels, logits)
    probabilities = _sigmoid(logits / temperature)
    negatives, positives = probabilities[~labels], probabilities[labels]
    at_rate = {
        name: threshold_at(negatives, positives, rate)
        for name, rate in FALSE_POSITIVE_RATES.items()
    }
    return GlanceCalibration(
        temperature=temperature,
        nll=_likelihood(labels, logits, temperature),
        auc=area_under_roc(labels, logits, np.ones(len(labels))),
        at_rate=at_rate,
        true_positive_rates={n: float(np.mean(positives >= t)) for n, t in at_rate.items()},
    )


def _likelihood(labels: Labels, logits: Values, temperature: float) -> float:
    """Return the balanced negative log-likelihood, nats."""
    margins = np.where(labels, logits, -logits) / temperature
    return float(class_weights(labels) @ np.logaddexp(0, -margins))


def _sigmoid(logits: Values) -> Values:
    """Compute the sigmoid in single precision, like the detector."""
    scores = torch.from_numpy(logits.astype(np.float32)).sigmoid()
    return scores.numpy().astype(np.float64)


def _choose_mask(samples: Sequence[Sample], head: str) -> tuple[float, float] | None:
    """Return a head's threshold with the best mean F1 over masks with both labels, and that F1.

    Thresholds that mark too many pixels of empty masks are excluded: for a poor mask, F1 over
    regions alone is best if everything is marked. None if there is no mask with both labels.
    """
    counts = [s.counts(head) for s in samples]
    regions = [h for h in counts if h is not None and h.sum(1).all()]
    if not regions:
        return None
    levels = np.arange(0.5, 255) / 255  # between byte values, independent of rounding
    empty = [h for h in counts if h is not None and not h[1].any()]
    clean = (
        np.sum([h[0] for h in empty], axis=0) if empty else np.zeros(256)
    )  # pixel counts by level
    marked = clean[::-1].cumsum()[::-1][1:]  # above each threshold
    quiet = marked <= MARKED_FALSE_POSITIVE_RATE * max(clean.sum(), 1)
    quiet[-1] = True
    means = [
        float(np.mean([measure_mask(h, level).f1 for h in regions])) if allowed else -1.0
        for level, allowed in zip(levels, quiet, strict=True)
    ]
    best = int(np.argmax(means))
    return float(levels[best]), means[best]


def _choose_area(samples: Sequence[Sample], mask: float) -> float | None:
    """Return the area that at most 5 % of unaltered pictures exceed; None if there are none."""
    areas: dict[MaskLabel, list[float]] = {label: [] for label in MaskLabel}
    for sample in samples:
        counts = sample.counts("manipulation")
        if counts is not None:
            areas[LABELS[sample.kind].manipulation].append(measure_mask(counts, mask).area)
    untouched = sorted(areas[MaskLabel.NONE], reverse=True)
    if not untouched or not areas[MaskLabel.REGION]:
        return None
    return untouched[_allowed(MANIPULATED_FALSE_POSITIVE_RATE, len(untouched))]
