"""Figures of merit of image scores and of masks, and how sure of them one can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, log_loss, roc_curve

BINS = 15
"""Equal bins of probability for the calibration error."""

Labels = NDArray[np.bool_]
Values = NDArray[np.float64]


class Measures(BaseModel):
    """What scores of pictures are worth; None where one class is missing.

    A picture is called AI-generated when its probability reaches the threshold.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    n_ai: int
    accuracy: float
    """At the stored threshold."""
    accuracy_at_half: float
    """At 0.5."""
    balanced_accuracy: float | None = None
    """Mean of the accuracies on either class, at the stored threshold."""
    balanced_accuracy_at_half: float | None = None
    auc: float | None = None
    ap: float | None = None
    """Average precision of the AI-generated class."""
    eer: float | None = None
    """Error rate where false alarms and misses are as frequent."""
    tpr_at_fpr_1: float | None = None
    tpr_at_fpr_5: float | None = None
    tpr_at_fpr_10: float | None = None
    ece: float | None = None
    """Expected calibration error over `BINS` bins, both classes of equal weight."""
    nll: float | None = None
    """Negative log-likelihood in nats, both classes of equal weight."""
    intervals: dict[str, tuple[float, float]] = {}
    """95 % bootstrap intervals of accuracy, balanced accuracy and AUC."""


class MaskScore(BaseModel):
    """One mask of one picture against its truth, over the pixels that were looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    true_area: float
    """Share of the pixels to be marked, 0 to 1."""
    area: float
    """Share of the pixels that reach the stored mask threshold, 0 to 1."""
    f1: float
    """Of the pixels at that threshold; where nothing is to be marked: 1 if nothing is, else 0."""
    iou: float
    """Likewise."""
    auc: float | None
    """None if all pixels are of one class."""


class MaskMeasures(BaseModel):
    """Means of `MaskScore` over pictures.

    `*_positives` are means over the pictures in which anything is to be marked; `*_all` over all
    pictures with a known truth; `auc` over those with pixels of both classes.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    n_positives: int
    f1_positives: float | None
    iou_positives: float | None
    f1_all: float
    iou_all: float
    auc: float | None


def measure(labels: Labels, probabilities: Values, threshold: float) -> Measures:
    """Measure scores.

    Args:
        labels: True for AI-generated pictures (n,), n at least 1.
        probabilities: Scores (n,) in [0, 1].
        threshold: Probability from which a picture is called AI-generated.

    Returns:
        All but the intervals.
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

    What is drawn, with replacement, are groups: versions of one original are no independent
    witnesses.

    Args:
        labels: As in `measure`.
        probabilities: As in `measure`.
        threshold: As in `measure`.
        groups: The original that each picture comes from (n,).
        resamples: How often to draw; draws that lack a class count not.
        seed: Of the draws.

    Returns:
        Low and high end by name of the figure; empty if a class is missing or no draw counts.
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
    """Weights (n,) that give either class half of a total of 1; both must be there."""
    weights: Values = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    return weights


def balanced_accuracy(labels: Labels, called: Labels, weights: Values) -> float:
    """Mean of the weighted accuracies on either class."""
    right = called == labels
    per_class = [np.average(right[side], weights=weights[side]) for side in (labels, ~labels)]
    return float(np.mean(per_class))


def area_under_roc(labels: Labels, probabilities: Values, weights: Values) -> float:
    """Weighted area under the ROC curve; ties count half."""
    levels = np.unique(probabilities, return_inverse=True)[1]
    negatives = np.bincount(levels, weights * ~labels)  # (levels,)
    positives = np.bincount(levels, weights * labels)
    return area_of_counts(negatives, positives)


def area_of_counts(negatives: NDArray[Any], positives: NDArray[Any]) -> float:
    """Area under the ROC curve of samples counted by level of the score, lowest first."""
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def calibration_error(labels: Labels, probabilities: Values, weights: Values) -> float:
    """Sum over the bins of |mean probability - share of AI-generated|, weighted by their mass."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights * (probabilities - labels), minlength=BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share; n at least 1."""
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def measure_mask(histogram: NDArray[np.int64], threshold: float) -> MaskScore:
    """Measure one mask.

    Args:
        histogram: Pixels counted by truth and level 0 to 255 (2, 256).
        threshold: Probability from which a pixel is marked.
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
    """Average over pictures; None if there are none."""
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
    """Error rate where the ROC curve, joined by straight lines, meets FPR = 1 - TPR."""
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))
