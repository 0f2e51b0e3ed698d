"""How well one attribute of the files alone tells the classes apart."""

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
_LEAVES = 8  # of the tree: enough for "exactly 512" and "not a multiple", too few to memorise


@dataclass(frozen=True)
class Separation:
    """What one attribute gives away."""

    attribute: str
    balanced_accuracy: float
    """Of the best rule on this attribute alone, for pictures it has not seen; 0.5 = chance."""
    standard_error: float
    authentic: str
    """Its values in the class that holds no pixels of a network."""
    ai_generated: str
    """Its values in the other class."""


def separations(rows: Sequence[Row]) -> list[Separation]:
    """Judge format, JPEG quality and size; nothing if there is only one class.

    The rule is a decision tree of at most 8 leaves with balanced classes, cross-validated in five
    folds by source id, so that a set of many odd sizes is not called separable by heart.
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
    """The commonest values with their shares, or the range of numbers of many kinds."""
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
    """Numbers as one column (N, 1), with -1 for none; names as one column each (N, names)."""
    if isinstance(values[0], str):
        names = sorted(set(values))
        return np.array([[value == name for name in names] for value in values], np.float32)
    return np.array([[-1 if value is None else value] for value in values], np.float32)


def _balanced_accuracy(
    columns: NDArray[np.float32], ai: NDArray[np.bool_], folds: NDArray[np.int64]
) -> tuple[float, float]:
    """Cross-validated balanced accuracy of the rule, and its standard error."""
    from sklearn.tree import DecisionTreeClassifier

    verdicts = np.zeros(len(ai))  # 1: AI-generated, 0: authentic, 0.5: the rule cannot tell
    for fold in np.unique(folds):
        held_out = folds == fold
        if held_out.all():  # a single source cannot be held out
            return 0.5, 0.0
        tree = DecisionTreeClassifier(
            max_leaf_nodes=_LEAVES, class_weight="balanced", random_state=0
        )
        tree.fit(columns[~held_out], ai[~held_out])
        shares = tree.predict_proba(columns[held_out]) @ tree.classes_  # of AI in the leaf
        verdicts[held_out] = (1 + np.sign(np.round(shares - 0.5, 6))) / 2
    right = verdicts[ai], 1 - verdicts[~ai]
    error = np.sqrt(sum(part.var() / len(part) for part in right)) / 2
    return float(np.mean([part.mean() for part in right])), float(error)
