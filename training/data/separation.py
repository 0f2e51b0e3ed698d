"""Separation of the classes by single file attributes."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.labels import LABELS
from training.data.manifest import Row

_FOLDS = 5
_LEAVES = 8  # leaves of the tree: enough for "exactly 512", too few to memorise sizes


@dataclass(frozen=True)
class Separation:
    """Separation of the classes by one attribute."""

    attribute: str
    balanced_accuracy: float
    """Cross-validated balanced accuracy of a rule on this attribute; 0.5 = chance."""
    standard_error: float
    authentic: str
    """Values in the class without AI-generated pixels."""
    ai_generated: str
    """Values in the AI-generated class."""


def separations(rows: Sequence[Row]) -> list[Separation]:
    """Compute the separation by format, JPEG quality and size; empty for a single class.

    The rule is a decision tree with at most 8 leaves and balanced classes, with five-fold
    cross-validation by source id, so that it cannot memorise unusual sizes.
    """
    ai = np.array([LABELS[row.kind].ai_generated for row in rows])
    if not len(rows) or ai.all() or not ai.any():
        return []
    folds = np.array([zlib.crc32(row.source_id.encode()) % _FOLDS for row in rows])
    return [
        Separation(
            name,
            *_balanced_accuracy(_columns(values), ai, folds),
            describe([v for v, fake in zip(values, ai, strict=True) if not fake]),
            describe([v for v, fake in zip(values, ai, strict=True) if fake]),
        )
        for name, values in _attributes(rows).items()
    ]


def describe(values: Sequence[Any]) -> str:
    """Return the most frequent values with shares, or the range of widely spread numbers."""
    counts = Counter(values)
    common = counts.most_common(3)
    numbers = [value for value in values if isinstance(value, int | float)]
    if sum(count for _, count in common) < 0.8 * len(values) and numbers:
        return f"{min(numbers):g} to {max(numbers):g}, median {np.median(numbers):g}"
    shares = (f"{'none' if v is None else v} {100 * n / len(values):.0f} %" for v, n in common)
    return ", ".join(shares) + (", …" if len(counts) > len(common) else "")


def _attributes(rows: Sequence[Row]) -> dict[str, Sequence[str] | Sequence[float | None]]:
    return {
        "format": [row.format for row in rows],
        "JPEG quality": [row.jpeg_quality for row in rows],
        "width": [row.width for row in rows],
        "height": [row.height for row in rows],
        "pixels": [row.width * row.height for row in rows],
        "aspect ratio": [round(row.width / row.height, 3) for row in rows],
    }


def _columns(values: Sequence[Any]) -> NDArray[np.float32]:
    """Encode numbers as one column (N, 1), None as -1; names as one-hot columns (N, names)."""
    if isinstance(values[0], str):
        names = sorted(set(values))
        return np.array([[value == name for name in names] for value in values], np.float32)
    return np.array([[-1 if value is None else value] for value in values], np.float32)


def _balanced_accuracy(
    columns: NDArray[np.float32], ai: NDArray[np.bool_], folds: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the cross-validated balanced accuracy and its standard error."""
    from sklearn.tree import DecisionTreeClassifier

    verdicts = np.zeros(len(ai))  # 1: AI-generated, 0: authentic, 0.5: undecided
    for fold in np.unique(folds):
        held_out = folds == fold
        if held_out.all():  # a single source cannot be held out
            return 0.5, 0.0
        tree = DecisionTreeClassifier(
            max_leaf_nodes=_LEAVES, class_weight="balanced", random_state=0
        )
        tree.fit(columns[~held_out], ai[~held_out])
        shares = tree.predict_proba(columns[held_out]) @ tree.classes_  # share of AI in the leaf
        verdicts[held_out] = (1 + np.sign(np.round(shares - 0.5, 6))) / 2
    right = verdicts[ai], 1 - verdicts[~ai]
    error = np.sqrt(sum(part.var() / len(part) for part in right)) / 2
    return float(np.mean([part.mean() for part in right])), float(error)
