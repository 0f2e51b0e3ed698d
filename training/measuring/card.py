"""The model card of an exported checkpoint: method, data, licences, calibration, results."""

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
from training.measuring.calibration import Calibration, describe
from training.measuring.evaluate import Summary
from training.measuring.report import table, to_short_markdown
from training.measuring.robustness import Robustness
from training.measuring.robustness import to_short_markdown as to_robustness_table

_STRONG = 0.9  # AUC below which a card says that its model is weak
NVIDIA_LICENCE = "https://github.com/NVlabs/SegFormer/blob/master/LICENSE"


_TOWER_LICENCE = (
    "The frozen image tower beside the encoder is CLIP ViT-B/16 (OpenAI; MIT). It is not part of "
    "these weights; the package that serves them brings it."
)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a card says beside the config; None or empty: not known, and said so."""

    settings: Settings | None = None
    """Of the run."""
    rows: Sequence[Row] = ()
    """Pictures of the run's manifests."""
    data_note: str | None = None
    """Where the data comes from and what its licences ask for, Markdown."""
    licence: str | None = None
    """Licence of the weights, an identifier of the hub."""
    calibration: Calibration | None = None
    evaluation: Summary | None = None
    robustness: Robustness | None = None


@dataclass(frozen=True, slots=True)
class Licence:
    """What follows for the weights from where they began."""

    identifier: str
    """Of the hub."""
    reason: str


def licence_that_follows(facts: RunFacts) -> Licence:
    """Derive the licence of trained weights from the ones they started from."""
    if facts.settings is None:
        return Licence(facts.licence or "unknown", "How these weights began is not recorded.")
    start = facts.settings.start
    backbone = facts.settings.model.backbone
    if start.encoder and backbone.startswith("mit_"):
        return Licence(
            "other",
            f"The encoder began as `{start.encoder}`, a Mix Transformer (MiT). NVIDIA's MiT "
            f"weights are for non-commercial use ([licence]({NVIDIA_LICENCE})), and so is what "
            "is trained from them.",
        )
    if start.encoder:
        return Licence(
            facts.licence or "apache-2.0",
            f"The encoder began as `{start.encoder}` ({backbone}); timm's "
            "PVTv2 weights are Apache-2.0.",
        )
    if start.checkpoint:
        return Licence(
            facts.licence or "unknown",
            f"Training began from the checkpoint `{start.checkpoint}`; its licence goes on to "
            "these weights.",
        )
    return Licence(
        facts.licence or "unknown",
        "The weights were drawn at random before training: no other network's licence is on them.",
    )


def write_card(config: GammaConfig, facts: RunFacts, *, half: bool) -> str:
    """Write the card as Markdown with the hub's metadata in front."""
    licence = licence_that_follows(facts)
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
        f"{licence.reason} The licences of the training pictures may ask for more.",
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
        "A probability is no proof. Scores of generators, formats and edits unlike those above "
        "are not known; compression, resizing and screenshots can change a verdict.",
        "",
        "Not to be used to decide about people (accusations, dismissals, prosecution, the "
        "authorship of coursework or of artworks), nor to take pictures down without a person "
        "looking at them, nor as evidence of what a picture shows: scores tell how a picture was "
        "made, not whether what it shows is true. Drawings, renderings, screenshots, scans and "
        "medical or satellite pictures are unlike everything above. Of pages of text too many are "
        "called generated; records say so of each (`notes`: `mostly_text`).",
    ]
    return "\n".join(sections) + "\n"


def short_results(evaluation: Summary) -> dict[str, Any] | None:
    """Return what services show of an evaluation (`Measured` of their API), or None.

    The first set counts, every picture as JPEG 96, so that formats tell nothing.
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
            " The encoder sees no colours but co-occurrences of differences between neighbouring "
            f"pixels, as {config.input_channels} learned channels, which the paper does not have."
        )
    if config.prior == "clip_vit_b16":
        lines[0] += (
            " Beside the encoder a frozen CLIP ViT-B/16 looks once at the whole picture: its class "
            "tokens are added to the classification feature, its patch tokens to the last two "
            "stages. The paper does not have that either."
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
            f"flip {augment.flip:g}, an earlier JPEG {augment.earlier_jpeg:g}, another size "
            f"{augment.rescale:g}.",
        ]
        if settings.model.crop_size != config.crop_size:
            lines[-1] += f" Training crops had {settings.model.crop_size} pixels a side."
        if settings.start.frozen:
            lines[-1] += f" Not trained in this run: {', '.join(settings.start.frozen)}."
        if settings.start.cooccurrences:
            lines[-1] += " The table of co-occurrences was taken from an earlier run."
    return lines


def _data(facts: RunFacts) -> list[str]:
    lines = [facts.data_note or "Sources and licences of the pictures are not stated."]
    if facts.rows:
        counts = Counter((row.kind, row.generator or "", row.split or "") for row in facts.rows)
        rows = [[*key, str(count)] for key, count in sorted(counts.items())]
        lines += ["", *table(("kind", "generator", "split", "pictures"), rows)]
    return lines


def _calibration(config: GammaConfig, found: Calibration | None) -> list[str]:
    if found is not None:
        return [describe(found)]
    values = ", ".join(f"{name} {value:.4g}" for name, value in config.thresholds.items())
    return [f"Not calibrated; thresholds, not chosen on validation pictures: {values}."]


def _in_short(evaluation: Summary | None) -> list[str]:
    """How good it is, in a paragraph of its own."""
    measured = None if evaluation is None else short_results(evaluation)
    if measured is None:
        return []
    overall = measured["rows"][0]
    text = (
        f"**On {overall['n']} AI-generated pictures and {measured['photographs']} photographs "
        f"({measured['conditions']}): AUC {overall['auc']:.2f}; where 5 % of the photographs are "
        f"called, {overall['tpr_at_fpr_5']:.0%} of the others are found.**"
    )
    if overall["auc"] < _STRONG:
        text += " That is weak: a try of the service, not something to judge pictures by."
    return [text, ""]


def _results(evaluation: Summary | None) -> list[str]:
    if evaluation is None:
        return ["Not measured."]
    crop = f" --crop {evaluation.crop}" if evaluation.crop else ""
    return [
        f"View {evaluation.view}, {evaluation.dtype}, measured as version {evaluation.version}"
        + (
            f", every picture cut to {evaluation.crop} x {evaluation.crop}"
            if evaluation.crop
            else ""
        )
        + f". With the same pictures as manifests in SETS, `gamma-train evaluate DIRECTORY SETS "
        f"--out OUT --view {evaluation.view}{crop} --degraded SET` gives every figure below.",
        "",
        re.sub(r"^(#+) ", r"##\1 ", to_short_markdown(evaluation), flags=re.MULTILINE),
    ]
