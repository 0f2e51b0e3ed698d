"""Plots of an evaluation, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from training.measuring.metrics import BINS, Labels, Values, class_weights
from training.output import writing

Samples = Mapping[str, Mapping[str, tuple[Labels, Values]]]
"""Labels and probabilities of the pictures (n,) by format mode and set."""

_PANEL = 4.0  # inches
_DOTS_PER_INCH = 110


def draw_roc(samples: Samples, file: Path) -> None:
    """Draw ROC curves: one panel per format mode, one line per set with both classes."""
    figure, panels = _row_of_panels(list(samples))
    for axes, sets in zip(panels, samples.values(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for name, (labels, probabilities) in _of_both_classes(sets).items():
            fpr, tpr, _ = roc_curve(labels, probabilities)
            axes.plot(fpr, tpr, label=name)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        _add_legend(axes)
    _save(figure, file)


def draw_reliability(samples: Samples, file: Path) -> None:
    """Draw reliability diagrams with equal class weights."""
    figure, panels = _row_of_panels(list(samples))
    for axes, sets in zip(panels, samples.values(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for name, (labels, probabilities) in _of_both_classes(sets).items():
            weights = class_weights(labels)
            bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
            mass = np.bincount(bins, weights, minlength=BINS)
            means = np.bincount(bins, weights * probabilities, minlength=BINS)[mass > 0]
            shares = np.bincount(bins, weights * labels, minlength=BINS)[mass > 0]
            axes.plot(means / mass[mass > 0], shares / mass[mass > 0], marker="o", label=name)
        axes.set(xlabel="AI probability", ylabel="share of AI-generated pictures")
        _add_legend(axes)
    _save(figure, file)


def draw_scores(samples: Samples, thresholds: Sequence[float], file: Path) -> None:
    """Draw histograms of the probabilities: one row per set, one column per format mode."""
    names = list(next(iter(samples.values())))
    figure = Figure(
        figsize=(_PANEL * len(samples), 0.6 * _PANEL * len(names)), layout="constrained"
    )
    grid = figure.subplots(len(names), len(samples), sharex=True, squeeze=False)
    bins = np.linspace(0, 1, 41)
    for column, (mode, sets) in enumerate(samples.items()):
        for row, name in enumerate(names):
            labels, probabilities = sets[name]
            axes = grid[row, column]
            axes.hist(probabilities[~labels], bins, alpha=0.6, label="not AI-generated")
            axes.hist(probabilities[labels], bins, alpha=0.6, label="AI-generated")
            for threshold in thresholds:
                axes.axvline(threshold, color="0.3", linestyle=":", linewidth=1)
            axes.set_title(f"{name}, {mode}", fontsize=9)
    grid[0, 0].legend(fontsize=8)
    _save(figure, file)


def draw_gallery(
    rows: Sequence[tuple[str, Sequence[NDArray[np.uint8] | None]]],
    columns: Sequence[str],
    file: Path,
) -> None:
    """Draw a gallery of pictures and masks.

    Args:
        rows: Caption, and one picture (H, W, 3) or mask (H, W) per column; None: unknown.
        columns: Column headings.
        file: Output file.
    """
    side = 0.45 * _PANEL
    figure = Figure(figsize=(side * len(columns), side * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, heading in zip(grid[0], columns, strict=True):
        axes.set_title(heading, fontsize=8)
    for panels, (caption, pictures) in zip(grid, rows, strict=True):
        panels[0].text(0, -0.02, caption, transform=panels[0].transAxes, fontsize=6, va="top")
        for axes, picture in zip(panels, pictures, strict=True):
            if picture is not None:
                axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    _save(figure, file)


def draw_curves(
    series: Mapping[str, tuple[Sequence[str], Mapping[str, Sequence[float]]]], file: Path
) -> None:
    """Draw degradation curves: one panel per series, with its levels and named values."""
    figure, panels = _row_of_panels(list(series))
    for axes, (levels, curves) in zip(panels, series.values(), strict=True):
        for name, values in curves.items():
            axes.plot(levels, values, marker="o", label=name)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    _add_legend(panels[0])
    _save(figure, file)


def _row_of_panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_PANEL * len(titles), _PANEL), layout="constrained")
    panels = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
    return figure, panels


def _of_both_classes(
    sets: Mapping[str, tuple[Labels, Values]],
) -> dict[str, tuple[Labels, Values]]:
    return {n: (t, p) for n, (t, p) in sets.items() if t.any() and not t.all()}


def _add_legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _save(figure: Figure, file: Path) -> None:
    with writing(file) as partial:
        figure.savefig(partial, format="png", dpi=_DOTS_PER_INCH)
