"""Metrics of image scores and masks, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, log_loss, roc_curve

BINS = 15
"""Number of equal bins for the calibration error."""

Labels = NDArray[np.bool_]
Values = NDArray[np.float64]


class Measures(BaseModel, frozen=True):
    """Metrics of image scores; None where they need both classes and one is missing.

    A picture is called AI-generated if its probability is at or above the threshold.
    """

    n: int
    n_ai: int
    accuracy: float
    """At the stored threshold."""
    accuracy_at_half: float
    """At 0.5."""
    balanced_accuracy: float | None = None
    """Mean of the accuracies of both classes, at the stored threshold."""
    balanced_accuracy_at_half: float | None = None
    auc: float | None = None
    ap: float | None = None
    """Average precision of the AI-generated class."""
    eer: float | None = None
    """Equal error rate."""
    tpr_at_fpr_1: float | None = None
    tpr_at_fpr_5: float | None = None
    tpr_at_fpr_10: float | None = None
    ece: float | None = None
    """Expected calibration error over `BINS` bins, with equal class weights."""
    nll: float | None = None
    """Negative log-likelihood in nats, with equal class weights."""
    intervals: dict[str, tuple[float, float]] = {}
    """95 % bootstrap intervals of accuracy, balanced accuracy and AUC."""


class MaskScore(BaseModel, extra="forbid", frozen=True):
    """Metrics of one mask of one picture, over the analysed part."""

    true_area: float
    """Share of positive pixels by label, 0 to 1."""
    area: float
    """Share of marked pixels (at or above the mask threshold), 0 to 1."""
    f1: float
    """Pixel F1 at that threshold; for an empty true mask 1 if nothing is marked, else 0."""
    iou: float
    """Pixel IoU, with the same convention."""
    auc: float | None
    """Pixel AUC; None if all pixels have one label."""


class MaskMeasures(BaseModel, frozen=True):
    """Means of `MaskScore` over pictures.

    `*_positives` are means over pictures with a non-empty true mask; `*_all` over all pictures with
    labels; `auc` over pictures with pixels of both labels.
    """

    n: int
    n_positives: int
    f1_positives: float | None
    iou_positives: float | None
    f1_all: float
    iou_all: float
    auc: float | None


def measure(labels: Labels, probabilities: Values, threshold: float) -> Measures:
    """Compute the metrics of image scores.

    Args:
        labels: True for AI-generated pictures (n,); n at least 1.
        probabilities: Scores (n,) in [0, 1].
        threshold: Minimum probability of a picture called AI-generated.

    Returns:
        All metrics except the intervals.
    """
    called = probabilities >= threshold
    basic = {
        "n": len(labels),
        "n_ai": int(labels.sum()),
        "accuracy": float(np.mean(called == labels)),
        "accuracy_at_half": float(np.mean((probabilities >= 0.5) == labels)),
    }
    if labels.all() or not labels.any():
        return Measures.model_validate(basic)
    weights = class_weights(labels)
    equal = np.ones(len(labels))
    fpr, tpr, _ = roc_curve(labels, probabilities, drop_intermediate=False)
    return Measures.model_validate(
        basic
        | {
            "balanced_accuracy": balanced_accuracy(labels, called, equal),
            "balanced_accuracy_at_half": balanced_accuracy(labels, probabilities >= 0.5, equal),
            "auc": area_under_roc(labels, probabilities, equal),
            "ap": float(average_precision_score(labels, probabilities)),
            "eer": _equal_error_rate(fpr, tpr),
            **{f"tpr_at_fpr_{p}": float(tpr[fpr <= p / 100].max()) for p in (1, 5, 10)},
            "ece": calibration_error(labels, probabilities, weights),
            "nll": float(log_loss(labels, probabilities, sample_weight=weights)),
        }
    )


def bootstrap(
    labels: Labels,
    probabilities: Values,
    threshold: float,
    groups: Sequence[str],
    *,
    resamples: int,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile intervals of accuracy, balanced accuracy and AUC.

    Groups are resampled, because versions of one original are not independent.

    Args:
        labels: As in `measure`.
        probabilities: As in `measure`.
        threshold: As in `measure`.
        groups: Source id of each picture (n,).
        resamples: Number of bootstrap resamples; those without both classes are dropped.
        seed: Random seed.

    Returns:
        Lower and upper bound by metric; empty if no resample has both classes.
    """
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    random = np.random.default_rng(seed)
    called = probabilities >= threshold
    drawn: list[tuple[float, float, float]] = []
    for _ in range(resamples):
        draws = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        weights = draws[members].astype(np.float64)
        if weights[labels].sum() and weights[~labels].sum():
            drawn.append(
                (
                    float(np.average(called == labels, weights=weights)),
                    balanced_accuracy(labels, called, weights),
                    area_under_roc(labels, probabilities, weights),
                )
            )
    if not drawn:
        return {}
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    figures = ("accuracy", "balanced_accuracy", "auc")
    return {name: (float(a), float(b)) for name, a, b in zip(figures, low, high, strict=True)}


def class_weights(labels: Labels) -> Values:
    """Return weights (n,) that sum to 0.5 per class; both classes must be present."""
    weights: Values = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    return weights


def balanced_accuracy(labels: Labels, called: Labels, weights: Values) -> float:
    """Return the mean of the weighted accuracies of both classes."""
    right = called == labels
    per_class = [np.average(right[side], weights=weights[side]) for side in (labels, ~labels)]
    return float(np.mean(per_class))


def area_under_roc(labels: Labels, probabilities: Values, weights: Values) -> float:
    """Return the weighted area under the ROC curve; ties count half."""
    levels = np.unique(probabilities, return_inverse=True)[1]
    negatives = np.bincount(levels, weights * ~labels)  # (levels,)
    positives = np.bincount(levels, weights * labels)
    return area_of_counts(negatives, positives)


def area_of_counts(negatives: NDArray[Any], positives: NDArray[Any]) -> float:
    """Return the area under the ROC curve from counts by score level, lowest first."""
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def calibration_error(labels: Labels, probabilities: Values, weights: Values) -> float:
    """Return the expected calibration error: bin-weighted |mean probability - positive share|."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights * (probabilities - labels), minlength=BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion; n at least 1."""
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def measure_mask(histogram: NDArray[np.int64], threshold: float) -> MaskScore:
    """Compute the metrics of one mask.

    Args:
        histogram: Pixel counts by label and mask level (2, 256).
        threshold: Minimum probability of a marked pixel.
    """
    marked = np.arange(histogram.shape[1]) >= threshold * 255
    false, true = histogram[:, marked].sum(1)
    negatives, positives = histogram.sum(1)
    union = int(positives + false)
    total = int(negatives + positives)
    return MaskScore(
        true_area=float(positives / total),
        area=float((false + true) / total),
        f1=float(2 * true / (true + union)) if union else 1.0,
        iou=float(true / union) if union else 1.0,
        auc=area_of_counts(*histogram) if negatives and positives else None,
    )


def average_masks(scores: Sequence[MaskScore]) -> MaskMeasures | None:
    """Average mask metrics over pictures; None if there are none."""
    if not scores:
        return None
    positives = [s for s in scores if s.true_area > 0]
    return MaskMeasures(
        n=len(scores),
        n_positives=len(positives),
        f1_positives=_mean([s.f1 for s in positives]),
        iou_positives=_mean([s.iou for s in positives]),
        f1_all=float(np.mean([s.f1 for s in scores])),
        iou_all=float(np.mean([s.iou for s in scores])),
        auc=_mean([s.auc for s in scores if s.auc is not None]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _equal_error_rate(fpr: Values, tpr: Values) -> float:
    """Return the error rate where the piecewise linear ROC curve meets FPR = 1 - TPR."""
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))
