"""The result of a calibration: its record, its place in a checkpoint, and its description."""

from __future__ import annotations

import json
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from model.checkpoint import CONFIG_FILE
from model.config import Pooling
from model.views import View
from training.measuring.report import table
from training.output import to_json, write_text

REPORT_FILE = "calibration.json"
"""Lies beside the checkpoint's config."""
FALSE_POSITIVE_RATES = {"uncertain": 0.10, "middle": 0.05, "ai_generated": 0.01}
"""Share of the pictures that are not AI-generated at or above each threshold; `middle` is only
reported."""


class PoolingReport(BaseModel):
    """How one way of pooling tiles does."""

    model_config = ConfigDict(frozen=True)

    temperature: float
    nll: float
    """Balanced negative log-likelihood in nats at that temperature."""
    auc: float


class GlanceCalibration(BaseModel):
    """What was chosen for verdicts from the glance alone, on whole pictures only."""

    model_config = ConfigDict(frozen=True)

    temperature: float
    nll: float
    """Balanced negative log-likelihood in nats at that temperature."""
    auc: float
    at_rate: dict[str, float]
    """Thresholds of `FALSE_POSITIVE_RATES`."""
    true_positive_rates: dict[str, float]
    """Share of the AI-generated pictures at or above each threshold."""


class Calibration(BaseModel):
    """What was chosen, and on what grounds."""

    model_config = ConfigDict(frozen=True)

    view: View
    pictures: dict[str, int]
    """By kind."""
    unreadable: tuple[str, ...]
    poolings: dict[str, PoolingReport]
    pooling: Pooling
    temperature: float
    nll_before: float
    """Balanced negative log-likelihood with the pooling and temperature that were stored."""
    at_rate: dict[str, float]
    """Thresholds of `FALSE_POSITIVE_RATES`."""
    false_positive_rates: dict[str, float]
    """Share of the pictures that are not AI-generated at or above each threshold."""
    true_positive_rates: dict[str, float]
    """Share of the AI-generated pictures at or above each threshold."""
    mask_levels: dict[str, float]
    """Probability from which pixels of a head are marked, before its offset; by head."""
    mask_f1: dict[str, float]
    """Mean F1 there over masks that hold both classes, by head; empty: nothing was chosen."""
    thresholds: dict[str, float]
    glance: GlanceCalibration | None
    """None without a prior."""
    notes: tuple[str, ...]
    """What was left as it was, or rests on few pictures."""


def store(calibration: Calibration, checkpoint: Path, crop_size: int) -> None:
    """Write what was chosen into the checkpoint's config, and the report beside it.

    Args:
        calibration: What was chosen.
        checkpoint: The directory.
        crop_size: Side of the crops that it was chosen for, pixels.

    Raises:
        OSError: A file cannot be read or written.
    """
    file = checkpoint / CONFIG_FILE
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields |= {
        "pooling": calibration.pooling,
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
    """Say in Markdown what was chosen, and why."""
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
        f"{head} from {level:.3f} on before (mean F1 of regions {found.mask_f1[head]:.3f})"
        for head, level in found.mask_levels.items()
    )
    lines = [
        f"Validation pictures, view {found.view}: {counts}.",
        "",
        f"Tiles pooled by {found.pooling}, temperature {found.temperature:.4g}; balanced NLL "
        f"{found.nll_before:.4f} before, {chosen.nll:.4f} after ({others}).",
        "",
        *table(("threshold", "probability", "false positive rate", "true positive rate"), rows),
        "",
        f"The masks are shifted so that pixels are marked from {found.thresholds['mask']:.2f} on: "
        f"{masks or 'not chosen'}. A picture is called manipulated if more than {area:.4f} of it "
        "is marked.",
        *([] if found.glance is None else _describe_glance(found.glance)),
        *(f"\nNote: {note}." for note in found.notes),
        *(f"\nLeft out, because unreadable: {line}" for line in found.unreadable),
    ]
    return "\n".join(lines)


def _describe_glance(found: GlanceCalibration) -> list[str]:
    rows = [
        [name, f"{value:.4g}", f"{found.true_positive_rates[name]:.3f}"]
        for name, value in found.at_rate.items()
    ]
    return [
        "",
        f"View glance, on the photographs and whole generated pictures: temperature "
        f"{found.temperature:.4g}, NLL {found.nll:.4f}, AUC {found.auc:.4f}.",
        "",
        *table(("threshold", "probability", "true positive rate"), rows),
    ]
