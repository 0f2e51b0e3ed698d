"""Settings of a training run: TOML files and overrides, read into frozen, checked models.

A value comes from the command line (`--set a.b=c`) if it is there, else from the file, else it is
the default. Where the paper says what to do, the default does it; where it is silent, the
docstring of the setting says so.
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

from training.data.labels import Kind
from training.errors import UserError
from training.output import write_text

Share = Annotated[float, Field(ge=0, le=1)]


class ConfigError(UserError):
    """A setting is unknown or wrong; the message names it and, for a file, the file."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataSettings(_Section):
    """Which pictures are shown, and how many of them."""

    manifests: tuple[str, ...] = ()
    """Manifest files; rows of split `train` are learned from, `validation` chooses the best."""
    kinds: tuple[Kind, ...] = tuple(Kind)
    """Kinds of pictures that are used (Table 6)."""
    mix: dict[Kind, Annotated[float, Field(gt=0)]] = {}
    """Shares of the kinds in an epoch, in any unit; empty: as the manifests have them. Kinds
    that are not listed are left out; one that is scarce repeats itself."""
    epoch_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Part of the training rows that one epoch shows, drawn anew each time."""
    pairs: bool = False
    """Whether every forgery brings its original into the batch: the same crop, the same flip,
    the same compression. They must have one source id and one size."""
    small_pictures: Literal["resize", "replicate"] = "resize"
    """What happens in training to a side shorter than the crop: enlarged (the paper's way, and
    what the service does) or continued by its last pixel."""
    padding: Annotated[int, Field(ge=0)] = 1
    """Black pixels laid around a training picture before it is cropped."""
    unreadable: Literal["replace", "fail"] = "replace"
    """Whether a picture that cannot be read is named and replaced by another of its kind, the
    same one every time, or ends the run."""
    max_pixels: Annotated[int, Field(gt=0)] = 100_000_000
    """Largest width times height of a picture."""
    workers: Annotated[int, Field(ge=0)] = 4
    """Loader processes for each training process; the pictures do not depend on it."""


class LabelSettings(_Section):
    """Label policy of Table 5."""

    copy_move: Literal[0, 1] = 0
    """Class of copy-move forgeries; their AI mask stays 0."""
    splice: Literal[0, 1] = 0
    """Class of splices; their AI mask stays 0."""


class AugmentSettings(_Section):
    """Augmentation of Wang et al. 2020 (CNN-generated images are surprisingly easy to spot)."""

    probability: Share = 0.5
    """Of a blur, and, independently, of a compression; they publish 0.5 and 0.1, and the paper
    does not say which it takes."""
    blur_sigma: Annotated[float, Field(gt=0, le=4)] = 3.0
    """Largest standard deviation of the blur, pixels."""
    compression: Share | None = None
    """Probability of the compression alone; unset: `probability`, as theirs."""
    jpeg_quality: tuple[int, int] = (30, 100)
    """Lowest and highest quality of the compression, each as likely."""
    aligned: Share = 0.0
    """Part of the compressions that are of quality 96 instead: what pictures are aligned to when
    they are measured (section 3.1 of the paper)."""
    full_chroma: Share = 0.0
    """Part of the compressions that do not halve the chroma's resolution; theirs all do."""
    flip: Share = 0.5
    """Probability of a mirror image."""
    earlier_jpeg: Share = 0.0
    """Probability of a compression before the last, on a grid of its own. Photographs on the
    web were often saved more than once and generated pictures seldom: that must not tell them
    apart. Neither the paper nor Wang et al. have it."""
    rescale: Share = 0.0
    """Probability of another size, before or after that compression, each as likely. Neither of
    them has it."""
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 1.5)
    """Smallest and largest factor of such a size, each as likely on a logarithmic scale."""
    jitter: Share = 0.0
    """Probability of a change of colours. The paper lists it; the code of Wang et al. has none."""
    brightness: Share = 0.2
    """Brightness is multiplied by 1 ± at most this, if colours change."""
    contrast: Share = 0.2
    """Contrast is multiplied by 1 ± at most this."""
    saturation: Share = 0.2
    """Saturation is multiplied by 1 ± at most this."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Hue is turned by at most this part of the circle."""

    @property
    def compression_probability(self) -> float:
        """What `compression` comes to."""
        return self.probability if self.compression is None else self.compression

    @model_validator(mode="after")
    def _check(self) -> AugmentSettings:
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 100:
            raise ValueError("jpeg_quality must be two numbers of 1 to 100, the lower one first")
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale must be two numbers, the lower one first")
        return self


class ModelSettings(_Section):
    """The network; the names are those of `GammaConfig`, which says what they mean."""

    name: str = "gamma"
    version: str = "1"
    backbone: str = "mit_b2"
    decoder_channels: int = 0
    output_channels: int = 0
    heads: str = "both"
    cross_attention: str = "reverse"
    key_value: str = "tokens"
    classification_weight: float = 2.0
    ai_weight: float = 2.0
    manipulation_weight: float = 1.0
    crop_size: int = 512
    input: str = "rgb"
    input_channels: int = 32
    prior: str = "none"
    tower: str = ""


class StartSettings(_Section):
    """What the weights are before the first step, and what is done to the network in training."""

    encoder: str = ""
    """Hub id, directory or safetensors file with pretrained weights of the encoder; empty:
    freshly drawn."""
    checkpoint: str = ""
    """A GAMMA checkpoint to start from, instead; its architecture must be the same."""
    cooccurrences: str = ""
    """With `model.input = "cooccurrence"`: a GAMMA checkpoint, such as another run's, whose table
    is taken; empty: one is learned."""
    cooccurrence_crops: Annotated[int, Field(gt=0)] = 24_000
    """Crops from which such a table is learned before the first step."""
    frozen: tuple[str, ...] = ()
    """Parts of the network that are not trained, such as `glance.tokens` or `classifier`."""
    drop_path: Share = 0.1
    """Largest rate of stochastic depth in the encoder (0.1 is SegFormer's)."""


class GlanceSettings(_Section):
    """Fitting the glance to kept features (`gamma-train glance`)."""

    seed: Annotated[int, Field(ge=0)] = 0
    copies: Annotated[int, Field(ge=0)] = 2
    """Altered copies of each training picture, beside the picture itself."""
    epochs: Annotated[int, Field(gt=0)] = 12
    batch_size: Annotated[int, Field(gt=0)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


class TrainSettings(_Section):
    """Optimisation."""

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(gt=0)] = 100
    """Most epochs; early stopping usually ends sooner."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Crops in one step, over all processes and accumulated parts."""
    accumulation: Annotated[int, Field(gt=0)] = 1
    """Parts in which each process computes its share of a batch, to save memory."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    """The paper names a rate and no schedule."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's own default; the paper is silent."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 0.0
    """Gradients are scaled down to this norm; 0: never."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of a moving average of the weights, which is what is evaluated and kept; 0: none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the hardware computes in it."""
    device: Literal["auto", "cpu"] = "auto"
    log_every: Annotated[int, Field(gt=0)] = 50
    """Steps between two lines of the log."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two evaluations; 0: after every epoch."""
    checkpoint_every: Annotated[int, Field(gt=0)] = 500
    """Steps between two checkpoints; there is one after every evaluation, too."""
    keep_checkpoints: Annotated[int, Field(gt=0)] = 2
    """How many of the last checkpoints stay."""


class StoppingSettings(_Section):
    """Early stopping on the accuracy of the validation pictures."""

    delta: Annotated[float, Field(ge=0)] = 0.01
    """What counts as better: at least so much more than the last value that counted."""
    patience: Annotated[int, Field(ge=0)] = 5
    """Evaluations without anything better after which training ends; 0: never."""


class Settings(_Section):
    """Everything that decides a run."""

    data: DataSettings = DataSettings()
    labels: LabelSettings = LabelSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
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
        overrides: `section.key=value` each, values as in TOML (a bare word is a string).

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or wrong.
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
    """Return nested values with `section.key=value` overrides laid over them.

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
                raise ConfigError(f"--set {text}: {section} holds no settings")
        target[key] = _parse(literal.strip())
    return merged


def validate(values: Mapping[str, Any], source: str = "settings") -> Settings:
    """Check nested values.

    Args:
        values: Sections with their settings.
        source: Where they come from, for messages.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"{source}: {_explain(dict(e))}" for e in error.errors())
        raise ConfigError(problems) from error


def save(settings: Settings, file: Path) -> None:
    """Write settings, every one of them; the file appears whole or not at all."""
    write_text(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)), file)


def differences(old: Settings, new: Settings) -> list[str]:
    """Say which settings differ, one line each."""
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
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}"
    known = _names()
    close = difflib.get_close_matches(name, known, n=1) or [
        full for full in known if full.rpartition(".")[2] == location[-1]
    ]
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{name}: no such setting{hint}"


def _names() -> list[str]:
    """Names of all sections, and of all settings as `section.key`."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    keys = [
        f"{name}.{key}"
        for name, section in sections.items()
        if isinstance(section, type) and issubclass(section, BaseModel)
        for key in section.model_fields
    ]
    return [*sections, *keys]
