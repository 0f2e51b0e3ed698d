"""Model card of an exported checkpoint: method, data, licence, calibration, results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.config import GammaConfig
from training.config import Settings
from training.data.changes import Format
from training.data.manifest import Row
from training.measuring.calibration_report import Calibration, describe
from training.measuring.evaluate import Summary
from training.measuring.report import table, to_short_markdown
from training.measuring.robustness import Robustness
from training.measuring.robustness import to_short_markdown as to_robustness_table

_STRONG = 0.9  # AUC below which the card calls the model weak
NVIDIA_LICENCE = "https://github.com/NVlabs/SegFormer/blob/master/LICENSE"


_TOWER_LICENCE = (
    "The frozen image tower is CLIP ViT-B/16 (OpenAI; MIT licence). It is not part of these "
    "weights; it comes with the package that serves them."
)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts for the card beside the config; the card says what is unknown (None or empty)."""

    settings: Settings | None = None
    """Settings of the run."""
    rows: Sequence[Row] = ()
    """Rows of the run's manifests."""
    data_note: str | None = None
    """Origin and licences of the data, Markdown."""
    licence: str | None = None
    """Licence of the weights, a hub identifier."""
    calibration: Calibration | None = None
    evaluation: Summary | None = None
    robustness: Robustness | None = None


@dataclass(frozen=True, slots=True)
class Licence:
    """Licence of trained weights, and why."""

    identifier: str
    """Hub identifier."""
    reason: str


def derived_licence(facts: RunFacts) -> Licence:
    """Derive the licence of trained weights from that of the initial weights."""
    if facts.settings is None:
        return Licence(facts.licence or "unknown", "The initial weights are not recorded.")
    start = facts.settings.start
    backbone = facts.settings.model.backbone
    if start.encoder and backbone.startswith("mit_"):
        return Licence(
            "other",
            f"The encoder was initialised from `{start.encoder}`, a Mix Transformer. NVIDIA's MiT "
            f"weights are for non-commercial use ([licence]({NVIDIA_LICENCE})), and so is what "
            "is trained from them.",
        )
    if start.encoder:
        return Licence(
            facts.licence or "apache-2.0",
            f"The encoder was initialised from `{start.encoder}` ({backbone}); timm's "
            "PVTv2 weights are Apache-2.0.",
        )
    if start.checkpoint:
        return Licence(
            facts.licence or "unknown",
            f"Training started from the checkpoint `{start.checkpoint}`; its licence also "
            "applies to these weights.",
        )
    return Licence(
        facts.licence or "unknown",
        "Training started from random weights, so no licence of another network applies.",
    )


def write_card(config: GammaConfig, facts: RunFacts, *, half: bool) -> str:
    """Return the card: Markdown with the hub's metadata."""
    licence = derived_licence(facts)
    stored = "large tensors in float16, small ones in float32" if half else "float32"
    sections = [
        "---",
        "library_name: transformers",
        "pipeline_tag: image-classification",
        f"license: {licence.identifier}",
        *(
            ["license_name: nvidia-segformer", f"license_link: {NVIDIA_LICENCE}"]
            if licence.identifier == "other"
            else []
        ),
        "tags: [gamma, ai-generated-image-detection, image-manipulation-localization]",
        "---",
        "",
        f"# {config.name} {config.version}",
        "",
        "Detects whether a picture, or a part of it, was made by a neural network, and where it "
        "was changed: one probability and two masks (AI-generated pixels, altered pixels).",
        "",
        *_in_short(facts.evaluation),
        f"Serve it: `gamma serve --checkpoint DIRECTORY`. Weights: {stored}.",
        "",
        "## Method",
        "",
        *_method(config, facts.settings),
        "",
        "## Data",
        "",
        *_data(facts),
        "",
        "## Licence",
        "",
        f"{licence.reason} The licences of the training pictures may impose more conditions.",
        *([] if config.prior == "none" else ["", _TOWER_LICENCE]),
        "",
        "## Calibration",
        "",
        *_calibration(config, facts.calibration),
        "",
        "## Results",
        "",
        *_results(facts.evaluation),
        "",
        "## Robustness",
        "",
        "Not measured." if facts.robustness is None else to_robustness_table(facts.robustness),
        "",
        "## Limits",
        "",
        "A probability is not proof. Accuracy on other generators, formats and edits is unknown; "
        "compression, resizing and screenshots can change a verdict.",
        "",
        "Do not use it to decide about people (accusations, dismissals, prosecution, authorship of "
        "coursework or artworks), to remove pictures without human review, or as evidence of what "
        "a picture shows: scores tell how a picture was made, not whether its content is true. "
        "Drawings, renderings, screenshots, scans and medical or satellite pictures were not "
        "tested. False alarms are frequent for pages of text; the detection then has the note "
        "`mostly_text`.",
    ]
    return "\n".join(sections) + "\n"


def short_results(evaluation: Summary) -> dict[str, Any] | None:
    """Return the results that the service shows (`Measured` of its API), or None.

    They are those of the first set with every picture as JPEG 96, independent of file formats.
    """
    name, report = next(iter(evaluation.formats[Format.JPEG96].items()))
    alarms = report.sources.get("all")
    rows = [
        {
            "pictures": generator,
            "n": found.n_ai,
            "auc": found.auc,
            "auc_interval": found.intervals["auc"],
            "tpr_at_fpr_1": found.tpr_at_fpr_1,
            "tpr_at_fpr_5": found.tpr_at_fpr_5,
        }
        for generator, found in (("all generators", report.overall), *report.generators.items())
        if found is not None and found.auc is not None
    ]
    if alarms is None or not rows:
        return None
    size = f"at most {evaluation.crop} pixels a side, " if evaluation.crop else ""
    return {
        "conditions": f"set `{name}`, {size}JPEG 96, view {evaluation.view}",
        "photographs": alarms.n,
        "false_alarms": alarms.called,
        "false_alarms_interval": alarms.interval,
        "rows": rows,
    }


def _method(config: GammaConfig, settings: Settings | None) -> list[str]:
    lines = [
        f"GAMMA (Yan et al.): encoder {config.backbone}, heads: {config.heads}, "
        f"cross-attention: {config.cross_attention} over {config.key_value}; loss weights: class "
        f"{config.classification_weight:g}, AI mask {config.ai_weight:g}, manipulation mask "
        f"{config.manipulation_weight:g}. Crops of {config.crop_size} x {config.crop_size} pixels."
    ]
    if config.input == "cooccurrence":
        lines[0] += (
            " The encoder's input is not colours but co-occurrences of differences between "
            f"neighbouring pixels, in {config.input_channels} learned channels; the paper does not "
            "have this."
        )
    if config.prior == "clip_vit_b16":
        lines[0] += (
            " A frozen CLIP ViT-B/16 processes the whole picture once: its class tokens are added "
            "to the classification feature, its patch tokens to the last two stages. The paper "
            "does not have this either."
        )
    if settings is not None:
        train, augment = settings.train, settings.augment
        start = settings.start.encoder or settings.start.checkpoint or "random weights"
        lines += [
            "",
            f"Trained from {start}, at most {train.epochs} epochs of "
            f"{settings.data.epoch_fraction:.0%} of the data, batch {train.batch_size}, learning "
            f"rate {train.learning_rate:g}, seed {train.seed}; augmentation: blur with "
            f"probability {augment.probability:g}, JPEG {augment.compression_probability:g}, "
            f"flip {augment.flip:g}, earlier JPEG {augment.earlier_jpeg:g}, resize "
            f"{augment.rescale:g}.",
        ]
        if settings.model.crop_size != config.crop_size:
            lines[-1] += (
                f" Training crops: {settings.model.crop_size} x {settings.model.crop_size} pixels."
            )
        if settings.start.frozen:
            lines[-1] += f" Not trained in this run: {', '.join(settings.start.frozen)}."
        if settings.start.cooccurrences:
            lines[-1] += " The co-occurrence table was copied from an earlier run."
    return lines


def _data(facts: RunFacts) -> list[str]:
    lines = [facts.data_note or "The origin and licences of the pictures are not stated."]
    if facts.rows:
        counts = Counter((row.kind, row.generator or "", row.split or "") for row in facts.rows)
        rows = [[*key, str(count)] for key, count in sorted(counts.items())]
        lines += ["", *table(("kind", "generator", "split", "pictures"), rows)]
    return lines


def _calibration(config: GammaConfig, found: Calibration | None) -> list[str]:
    if found is not None:
        return [describe(found)]
    values = ", ".join(f"{name} {value:.4g}" for name, value in config.thresholds.items())
    return [f"Not calibrated; default thresholds: {values}."]


def _in_short(evaluation: Summary | None) -> list[str]:
    """Return the main result as a paragraph."""
    measured = None if evaluation is None else short_results(evaluation)
    if measured is None:
        return []
    overall = measured["rows"][0]
    text = (
        f"**On {overall['n']} AI-generated pictures and {measured['photographs']} photographs "
        f"({measured['conditions']}): AUC {overall['auc']:.2f}; at a false positive rate of "
        f"5 %, {overall['tpr_at_fpr_5']:.0%} of the AI-generated pictures are found.**"
    )
    if overall["auc"] < _STRONG:
        text += " This is weak: good enough to try the service, not to judge pictures."
    return [text, ""]


def _results(evaluation: Summary | None) -> list[str]:
    if evaluation is None:
        return ["Not measured."]
    crop = f" --crop {evaluation.crop}" if evaluation.crop else ""
    return [
        f"View {evaluation.view}, {evaluation.dtype}, measured as version {evaluation.version}"
        + (
            f", every picture cropped to {evaluation.crop} x {evaluation.crop}"
            if evaluation.crop
            else ""
        )
        + f". With the same pictures as manifests in SETS, `gamma-train evaluate DIRECTORY SETS "
        f"--out OUT --view {evaluation.view}{crop} --degraded SET` reproduces the figures below.",
        "",
        re.sub(r"^(#+) ", r"##\1 ", to_short_markdown(evaluation), flags=re.MULTILINE),
    ]
