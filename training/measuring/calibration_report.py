"""The result of a calibration: report, storage in a checkpoint, and description."""

from __future__ import annotations

import json
import math
from pathlib import Path

from pydantic import BaseModel

from model.checkpoint import CONFIG_FILE
from model.config import Pooling
from pictures.findings import View
from training.measuring.report import table
from training.output import to_json, write_text

REPORT_FILE = "calibration.json"
"""Name of the report in the checkpoint's directory."""
FALSE_POSITIVE_RATES = {"uncertain": 0.10, "middle": 0.05, "ai_generated": 0.01}
"""False positive rate of each threshold; `middle` is only reported."""


class PoolingReport(BaseModel, frozen=True):
    """Result of one pooling."""

    part_offset: float | None = None
    """As in `GammaConfig`: the best one for this pooling."""
    temperature: float
    nll: float
    """Balanced negative log-likelihood in nats at that temperature."""
    auc: float


class GlanceCalibration(BaseModel, frozen=True):
    """Calibration of verdicts from the glance alone, on whole pictures."""

    temperature: float
    nll: float
    """Balanced negative log-likelihood in nats at that temperature."""
    auc: float
    at_rate: dict[str, float]
    """Thresholds of `FALSE_POSITIVE_RATES`."""
    true_positive_rates: dict[str, float]
    """True positive rate of each threshold."""


class Calibration(BaseModel, frozen=True):
    """Chosen values, and the measurements behind them."""

    view: View
    pictures: dict[str, int]
    """Number of pictures by kind."""
    unreadable: tuple[str, ...]
    poolings: dict[str, PoolingReport]
    pooling: Pooling
    part_offset: float | None = None
    """As in `GammaConfig`."""
    temperature: float
    nll_before: float
    """Balanced negative log-likelihood with the stored pooling and temperature."""
    at_rate: dict[str, float]
    """Thresholds of `FALSE_POSITIVE_RATES`."""
    false_positive_rates: dict[str, float]
    """False positive rate of each threshold."""
    true_positive_rates: dict[str, float]
    """True positive rate of each threshold."""
    mask_levels: dict[str, float]
    """Mask threshold of each head before its offset."""
    mask_f1: dict[str, float]
    """Mean F1 at that threshold over masks with both labels, by head."""
    thresholds: dict[str, float]
    glance: GlanceCalibration | None
    """None without a prior."""
    whole_offset: float | None = None
    """As in `GammaConfig`."""
    notes: tuple[str, ...]
    """Values that were not calibrated or rest on few pictures."""


def store(
    calibration: Calibration, checkpoint: Path, *, crop_size: int, part_gain: float = 0.0
) -> None:
    """Write a calibration into the checkpoint's config, and the report beside it.

    Args:
        calibration: The calibration.
        checkpoint: Directory of the checkpoint.
        crop_size: Crop size of the calibration, pixels.
        part_gain: As in `GammaConfig`, of the calibration.

    Raises:
        OSError: A file cannot be read or written.
    """
    file = checkpoint / CONFIG_FILE
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields |= {
        "pooling": calibration.pooling,
        "part_offset": calibration.part_offset,
        "part_gain": part_gain,
        "whole_offset": calibration.whole_offset,
        "temperature": calibration.temperature,
        "thresholds": calibration.thresholds,
        "crop_size": crop_size,
        "mask_offsets": {
            head: math.log((1 - level) / level) for head, level in calibration.mask_levels.items()
        },
    }
    if calibration.glance is not None:
        at_rate = calibration.glance.at_rate
        fields["glance_temperature"] = calibration.glance.temperature
        fields["glance_thresholds"] = calibration.thresholds | {
            name: at_rate[name] for name in ("uncertain", "ai_generated")
        }
    write_text(calibration.model_dump_json(indent=2) + "\n", checkpoint / REPORT_FILE)
    write_text(to_json(fields, indent=2), file)


def describe(calibration: Calibration) -> str:
    """Describe a calibration in Markdown."""
    found = calibration
    counts = ", ".join(f"{count} {kind}" for kind, count in found.pictures.items())
    chosen = found.poolings[found.pooling]
    others = "; ".join(
        f"{name}: NLL {report.nll:.4f}, AUC {report.auc:.4f}, temperature {report.temperature:.3g}"
        for name, report in found.poolings.items()
    )
    rows = [
        [
            name,
            f"{value:.4g}",
            f"{found.false_positive_rates[name]:.3f}",
            f"{found.true_positive_rates[name]:.3f}",
        ]
        for name, value in found.at_rate.items()
    ]
    area = found.thresholds["manipulated_area"]
    masks = "; ".join(
        f"{head} {level:.3f} before the offset (mean F1 of regions {found.mask_f1[head]:.3f})"
        for head, level in found.mask_levels.items()
    )
    part = "" if found.part_offset is None else f", part offset {found.part_offset:g}"
    whole = (
        ""
        if found.whole_offset is None
        else " The AI mask covers the whole picture if the logit of the glance is above "
        f"{-found.whole_offset:.3g} (5 % false positives)."
    )
    lines = [
        f"Validation pictures, view {found.view}: {counts}.",
        "",
        f"Tiles pooled by {found.pooling}{part}, temperature {found.temperature:.4g}; balanced NLL "
        f"{found.nll_before:.4f} before, {chosen.nll:.4f} after ({others}).",
        "",
        *table(("threshold", "probability", "false positive rate", "true positive rate"), rows),
        "",
        f"Mask offsets move the mask threshold to {found.thresholds['mask']:.2f}: "
        f"{masks or 'not calibrated'}. A picture is called manipulated if more than {area:.4f} of "
        f"it is marked.{whole}",
        *([] if found.glance is None else _describe_glance(found.glance)),
        *(f"\nNote: {note}." for note in found.notes),
        *(f"\nUnreadable, left out: {line}" for line in found.unreadable),
    ]
    return "\n".join(lines)


def _describe_glance(found: GlanceCalibration) -> list[str]:
    rows = [
        [name, f"{value:.4g}", f"{found.true_positive_rates[name]:.3f}"]
        for name, value in found.at_rate.items()
    ]
    return [
        "",
        f"View glance, on photographs and whole generated pictures: temperature "
        f"{found.temperature:.4g}, NLL {found.nll:.4f}, AUC {found.auc:.4f}.",
        "",
        *table(("threshold", "probability", "true positive rate"), rows),
    ]
