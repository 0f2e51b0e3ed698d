"""Settings: files, overrides and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import ConfigError, Settings, differences, load, save, validate
from training.data.labels import Kind

CONFIGS = Path(__file__).parents[2] / "configs"


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "run.toml"
    file.write_text(text)
    return file


def test_paper_recipe() -> None:
    settings = load(CONFIGS / "paper.toml")
    model, train = settings.model, settings.train
    assert (model.backbone, model.crop_size, model.heads) == ("mit_b2", 512, "both")
    weights = (model.classification_weight, model.ai_weight, model.manipulation_weight)
    assert weights == (2, 2, 1)
    assert (train.batch_size, train.learning_rate) == (16, 1e-4)
    assert (settings.data.epoch_fraction, settings.data.padding) == (0.1, 1)
    assert (settings.stopping.delta, settings.stopping.patience) == (0.01, 5)
    assert (settings.labels.copy_move, settings.labels.splice) == (0, 0)


def test_small_recipe_is_valid() -> None:
    settings = load(CONFIGS / "cpu-small.toml")
    assert settings.data.pairs
    assert settings.model.input == "cooccurrence"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nlerning_rate = 1", "train.lerning_rate: no such setting; did you mean train.l"),
        ("[trian]\nseed = 1", "trian: no such setting; did you mean train?"),
        ("[data]\nseed = 1", "data.seed: no such setting; did you mean train.seed?"),
        ("[model]\nheds = 'ai'", "model.heds: no such setting; did you mean model.heads?"),
        ("[model]\nheads = 'none of them'", "model.heads: Input should be 'none', "),
        ("[train]\nepochs = 0", "train.epochs: Input should be greater than 0"),
        ("[data]\nkinds = ['drawn']", "data.kinds.0"),
        ("[train", "run.toml: "),
        ("[start]\nencoder = 'a'\ncheckpoint = 'b'", "exclude each other"),
        ("[augment]\njpeg_quality = [90, 30]", "in ascending order"),
    ],
)
def test_invalid_setting_error_names_it(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert message in str(caught.value)
    assert "run.toml" in str(caught.value)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[train]\nseed = 1\nepochs = 3\n[data]\nmanifests = ['m.jsonl']")
    settings = load(
        file,
        ["train.seed=2", "model.backbone=mit_b0", "data.kinds=['splice']", "data.mix.splice=1"],
    )
    assert (settings.train.seed, settings.train.epochs) == (2, 3)
    assert settings.model.backbone == "mit_b0"
    assert settings.data.kinds == (Kind.SPLICE,)
    assert settings.data.mix == {Kind.SPLICE: 1}
    assert settings.data.manifests == (str(tmp_path / "m.jsonl"),)


@pytest.mark.parametrize("text", ["seed=1", "train.seed", "=1", "train.=1"])
def test_invalid_override_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load(write(tmp_path, ""), [text])


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    settings = validate({"data": {"manifests": ["/m.jsonl"], "mix": {"splice": 0.5}}})
    save(settings, tmp_path / "config.toml")
    assert load(tmp_path / "config.toml") == settings


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().train.seed = 1  # type: ignore[misc]


def test_differences_are_listed() -> None:
    changed = validate({"train": {"seed": 5}})
    assert differences(Settings(), changed) == ["train.seed: 0 -> 5"]
