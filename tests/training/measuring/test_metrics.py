"""Metrics compared with values computed by hand and with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.measuring import metrics
from training.measuring.metrics import MaskScore

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
SCORES = np.array([0.1, 0.2, 0.3, 0.8, 0.4, 0.6, 0.7, 0.9])


@pytest.fixture
def library() -> Any:
    """The metrics of scikit-learn."""
    import sklearn.metrics  # not above: it takes seconds to import

    return sklearn.metrics


def test_image_metrics_by_hand() -> None:
    found = metrics.measure(LABELS, SCORES, 0.65)
    assert (found.n, found.n_ai) == (8, 4)
    assert found.accuracy == 5 / 8  # 0.8 is a false alarm; 0.4 and 0.6 are missed
    assert found.accuracy_at_half == 6 / 8
    assert found.balanced_accuracy == (3 / 4 + 2 / 4) / 2
    assert found.balanced_accuracy_at_half == 6 / 8
    assert found.auc == 13 / 16  # 0.8 is above 0.4, 0.6 and 0.7
    assert found.ap == pytest.approx((1 / 1 + 2 / 3 + 3 / 4 + 4 / 5) / 4)
    assert found.eer == 1 / 4
    assert (found.tpr_at_fpr_1, found.tpr_at_fpr_5, found.tpr_at_fpr_10) == (0.25, 0.25, 0.25)
    correct = np.where(LABELS, SCORES, 1 - SCORES)
    assert found.nll == pytest.approx(-np.log(correct).mean())


def test_balanced_metrics_do_not_depend_on_class_sizes() -> None:
    labels = np.array([0] * 9 + [1], bool)
    scores = np.array([0.2] * 9 + [0.4])
    found = metrics.measure(labels, scores, 0.5)
    assert found.accuracy == 0.9
    assert found.balanced_accuracy == 0.5
    assert found.nll == pytest.approx((-np.log(0.8) - np.log(0.4)) / 2)
    assert found.ece == pytest.approx((0.2 + 0.6) / 2)


def test_one_class_gives_accuracy_alone() -> None:
    found = metrics.measure(np.ones(3, bool), np.array([0.2, 0.6, 0.7]), 0.5)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.auc is found.eer is found.balanced_accuracy is None


def test_calibrated_scores_have_no_calibration_error() -> None:
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)
    scores = np.array([0.25] * 4 + [0.75] * 4)
    assert metrics.calibration_error(labels, scores, np.ones(8)) == 0


def test_weighted_auc_equals_the_librarys(library: Any) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.3
    scores = np.round(rng.random(300) + 0.3 * labels, 1)  # with many ties
    weights = rng.integers(0, 4, 300).astype(float)
    expected = library.roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.area_under_roc(labels, scores, weights) == pytest.approx(expected)


def test_intervals_have_their_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        labels = np.arange(200) % 2 == 1
        scores = np.clip(rng.normal(0.5 + np.where(labels, 0.1, -0.1), 0.1), 0, 1)
        groups = [str(i) for i in range(200)]
        low, high = metrics.bootstrap(labels, scores, 0.5, groups, resamples=100, seed=seed)[
            "accuracy"
        ]
        covered += low <= 0.8413 <= high  # standard normal distribution function at 1
    assert 88 <= covered <= 100


def test_versions_of_one_original_do_not_narrow_intervals() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2 == 1
    scores = np.clip(rng.normal(0.5 + np.where(labels, 0.1, -0.1), 0.1), 0, 1)
    groups = [str(i) for i in range(40)]

    def width(times: int) -> float:
        found = metrics.bootstrap(
            np.tile(labels, times), np.tile(scores, times), 0.5, groups * times, resamples=200
        )
        low, high = found["auc"]
        return high - low

    assert width(1) == width(8)
    assert metrics.bootstrap(labels, scores, 0.5, groups, resamples=0) == {}


def test_masks_by_hand_and_by_the_library(library: Any) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(1000) < 0.2
    mask = np.clip(rng.normal(100 + 60 * truth, 40), 0, 255).astype(np.uint8)
    histogram = np.bincount(mask + 256 * truth.astype(int), minlength=512).reshape(2, 256)
    found = metrics.measure_mask(histogram, 0.5)
    marked = mask >= 127.5
    assert found.f1 == pytest.approx(library.f1_score(truth, marked))
    assert found.iou == pytest.approx(library.jaccard_score(truth, marked))
    assert found.auc == pytest.approx(library.roc_auc_score(truth, mask))
    assert (found.area, found.true_area) == (marked.mean(), truth.mean())


@pytest.mark.parametrize(("level", "expected"), [(10, 1.0), (200, 0.0)])
def test_nothing_to_mark(level: int, expected: float) -> None:
    histogram = np.zeros((2, 256), np.int64)
    histogram[0, level] = 5
    found = metrics.measure_mask(histogram, 0.5)
    assert (found.f1, found.iou, found.auc) == (expected, expected, None)


def test_mask_means_by_convention() -> None:
    def one(true_area: float, f1: float, auc: float | None) -> MaskScore:
        return MaskScore(true_area=true_area, area=0.5, f1=f1, iou=f1 / 2, auc=auc)

    found = metrics.average_masks([one(0.5, 0.8, 0.9), one(1, 0.4, None), one(0, 0, None)])
    assert found is not None
    assert (found.n, found.n_positives) == (3, 2)
    assert (found.f1_positives, found.f1_all) == (pytest.approx(0.6), pytest.approx(0.4))
    assert (found.iou_positives, found.auc) == (pytest.approx(0.3), 0.9)
    assert metrics.average_masks([]) is None
