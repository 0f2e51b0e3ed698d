"""Settings of a training run: TOML files and overrides, validated and immutable.

Priority: command line (`--set a.b=c`), file, default. Defaults follow the paper; if the paper does
not define a value, the docstring of the setting says so.
"""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.architecture import Architecture
from training.data.labels import Kind
from training.errors import UserError
from training.output import write_text

Share = Annotated[float, Field(ge=0, le=1)]


class ConfigError(UserError):
    """A setting is unknown or invalid; the message names it and the file, if any."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataSettings(_Section):
    """Training data."""

    manifests: tuple[str, ...] = ()
    """Manifest files; the split `train` is trained on, `validation` selects the best network."""
    kinds: tuple[Kind, ...] = tuple(Kind)
    """Kinds of pictures to use (Table 6)."""
    mix: dict[Kind, Annotated[float, Field(gt=0)]] = {}
    """Relative shares of the kinds in an epoch; empty: as in the manifests. Kinds that are not
    listed are left out; pictures of a scarce kind are repeated."""
    epoch_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Fraction of the training rows in one epoch, sampled again for each epoch."""
    pairs: bool = False
    """Whether each forgery is batched with its original (same source id and size), with the same
    crop, flip and compression."""
    small_pictures: Literal["resize", "replicate"] = "resize"
    """Handling of a side shorter than the crop in training: enlarge the picture (as in the paper
    and the service) or replicate its last pixels."""
    padding: Annotated[int, Field(ge=0)] = 1
    """Black padding around a training picture before the crop, pixels."""
    unreadable: Literal["replace", "fail"] = "replace"
    """Whether an unreadable picture is reported and replaced by another of its kind (always the
    same one), or ends the run."""
    max_pixels: Annotated[int, Field(gt=0)] = 100_000_000
    """Largest width times height of a picture."""
    workers: Annotated[int, Field(ge=0)] = 4
    """Loader processes per training process; has no effect on the crops."""


class LabelSettings(_Section):
    """Class labels of forgeries (Table 5)."""

    copy_move: Literal[0, 1] = 0
    """Class of copy-move forgeries; their AI mask stays 0."""
    splice: Literal[0, 1] = 0
    """Class of splices; their AI mask stays 0."""


class AugmentSettings(_Section):
    """Augmentation of Wang et al. 2020 (CNN-generated images are surprisingly easy to spot)."""

    probability: Share = 0.5
    """Probability of a blur and, independently, of a compression. Wang et al. publish 0.5 and
    0.1; the paper does not say which it uses."""
    blur_sigma: Annotated[float, Field(gt=0, le=4)] = 3.0
    """Maximum standard deviation of the blur, pixels."""
    compression: Share | None = None
    """Probability of the compression; unset: `probability`."""
    jpeg_quality: tuple[int, int] = (30, 100)
    """Range of the JPEG quality, uniform."""
    aligned: Share = 0.0
    """Share of the compressions with quality 96, the format alignment of the evaluation
    (section 3.1 of the paper)."""
    full_chroma: Share = 0.0
    """Share of the compressions without chroma subsampling; 0 in Wang et al."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    earlier_jpeg: Share = 0.0
    """Probability of an earlier compression, on a shifted grid. Photographs on the web were often
    saved more than once, generated pictures rarely; this must not separate the classes. Neither
    the paper nor Wang et al. have it."""
    rescale: Share = 0.0
    """Probability of a resize, before or after the earlier compression with equal probability.
    Neither the paper nor Wang et al. have it."""
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 1.5)
    """Range of the resize factor, log-uniform."""
    jitter: Share = 0.0
    """Probability of colour jitter. The paper lists it; the code of Wang et al. has none."""
    brightness: Share = 0.2
    """Brightness factor: uniform in 1 ± this."""
    contrast: Share = 0.2
    """Contrast factor: uniform in 1 ± this."""
    saturation: Share = 0.2
    """Saturation factor: uniform in 1 ± this."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Maximum hue shift, as a fraction of the colour circle."""

    @property
    def compression_probability(self) -> float:
        """Effective probability of the compression."""
        return self.probability if self.compression is None else self.compression

    @model_validator(mode="after")
    def _check(self) -> AugmentSettings:
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 100:
            raise ValueError("jpeg_quality must be two numbers from 1 to 100, in ascending order")
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale must be two numbers in ascending order")
        return self


class StartSettings(_Section):
    """Initial weights, and what is trained."""

    encoder: str = ""
    """Hub id, directory or safetensors file with pretrained weights of the encoder, of a GAMMA
    checkpoint for example; empty: random weights."""
    checkpoint: str = ""
    """A GAMMA checkpoint of the same architecture to start from, instead of `encoder`."""
    cooccurrences: str = ""
    """With `model.input = "cooccurrence"`: a GAMMA checkpoint to copy the table from; empty: a
    table is learned."""
    cooccurrence_crops: Annotated[int, Field(gt=0)] = 24_000
    """Number of crops from which the table is learned before the first step."""
    frozen: tuple[str, ...] = ()
    """Modules of the network that are not trained, such as `glance.tokens` or `classifier`."""
    drop_path: Share = 0.1
    """Maximum rate of stochastic depth in the encoder (SegFormer: 0.1)."""


class GlanceSettings(_Section):
    """Fitting the glance to cached features (`gamma-train glance`)."""

    seed: Annotated[int, Field(ge=0)] = 0
    copies: Annotated[int, Field(ge=0)] = 2
    """Augmented copies of each training picture, in addition to the picture itself."""
    copy_weight: Annotated[float, Field(gt=0)] = 0.15
    """Weight of a copy in the loss; that of the picture is 1."""
    epochs: Annotated[int, Field(gt=0)] = 12
    batch_size: Annotated[int, Field(gt=0)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


class TrainSettings(_Section):
    """Optimisation."""

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(gt=0)] = 100
    """Maximum number of epochs; early stopping usually ends a run sooner."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Crops per step, over all processes and accumulated parts."""
    accumulation: Annotated[int, Field(gt=0)] = 1
    """Gradient accumulation: parts of a batch per process."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate schedule; the paper names none."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's default; the paper gives no value."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 0.0
    """Maximum norm of the gradient; 0: no clipping."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights that is evaluated and kept; 0: no average."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 if the hardware supports it."""
    device: Literal["auto", "cpu"] = "auto"
    log_every: Annotated[int, Field(gt=0)] = 50
    """Steps between two log entries."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two evaluations; 0: after every epoch."""
    checkpoint_every: Annotated[int, Field(gt=0)] = 500
    """Steps between two checkpoints; one is also written after every evaluation."""
    keep_checkpoints: Annotated[int, Field(gt=0)] = 2
    """Number of most recent checkpoints to keep."""


class StoppingSettings(_Section):
    """Early stopping on the validation accuracy."""

    delta: Annotated[float, Field(ge=0)] = 0.01
    """Minimum improvement over the last value that counted as better."""
    patience: Annotated[int, Field(ge=0)] = 5
    """Number of evaluations without improvement after which training ends; 0: never."""


class Settings(_Section):
    """All settings of a run."""

    data: DataSettings = DataSettings()
    labels: LabelSettings = LabelSettings()
    augment: AugmentSettings = AugmentSettings()
    model: Architecture = Architecture()
    start: StartSettings = StartSettings()
    glance: GlanceSettings = GlanceSettings()
    train: TrainSettings = TrainSettings()
    stopping: StoppingSettings = StoppingSettings()

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.start.encoder and self.start.checkpoint:
            raise ValueError("start.encoder and start.checkpoint exclude each other")
        return self


def load(file: Path, overrides: Iterable[str] = ()) -> Settings:
    """Read settings from a TOML file.

    Args:
        file: The file; manifests in it are relative to its folder.
        overrides: `section.key=value`, with TOML values (a bare word is a string).

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or invalid.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    settings = validate(values, str(file))
    if settings.data.manifests:
        manifests = [str((file.parent / name).resolve()) for name in settings.data.manifests]
        values["data"]["manifests"] = manifests
    return validate(override(values, overrides), str(file))


def override(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return nested values with `section.key=value` overrides applied.

    Raises:
        ConfigError: An override does not have that form.
    """
    merged: dict[str, Any] = copy.deepcopy(dict(values))
    for text in overrides:
        path, equals, literal = text.partition("=")
        *sections, key = path.strip().split(".")
        if not (equals and sections and all(sections) and key):
            raise ConfigError(f"--set {text}: must have the form section.key=value")
        target = merged
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {text}: {section} is not a section")
        target[key] = _parse(literal.strip())
    return merged


def validate(values: Mapping[str, Any], source: str = "settings") -> Settings:
    """Check nested values.

    Args:
        values: Sections with their settings.
        source: Origin of the values, for messages.

    Raises:
        ConfigError: A setting is unknown or invalid.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"{source}: {_explain(dict(e))}" for e in error.errors())
        raise ConfigError(problems) from error


def save(settings: Settings, file: Path) -> None:
    """Write all settings to a TOML file, atomically."""
    write_text(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)), file)


def differences(old: Settings, new: Settings) -> list[str]:
    """Return the settings that differ, one line each."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return [
        f"{section}.{key}: {before[section][key]} -> {value}"
        for section, values in after.items()
        for key, value in values.items()
        if value != before[section][key]
    ]


def _parse(literal: str) -> Any:
    try:
        return tomllib.loads(f"value = {literal}")["value"]
    except tomllib.TOMLDecodeError:
        return literal


def _explain(error: dict[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    name = ".".join(location) or "settings"
    if error["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{name}: {error['msg']}"
    known = _names()
    close = difflib.get_close_matches(name, known, n=1) or [
        full for full in known if full.rpartition(".")[2] == location[-1]
    ]
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{name}: no such setting{hint}"


def _names() -> list[str]:
    """Return the names of all sections and of all settings (`section.key`)."""
    sections = Settings().model_dump()
    return [*sections, *(f"{name}.{key}" for name, keys in sections.items() for key in keys)]
