"""Runs: learning, exact resumption and errors."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from model import checkpoint
from model.engine import to_levels
from model.network import GammaModel
from tests.training.commands import started
from tests.training.conftest import make_tree, small_settings
from training import config
from training.cli import app
from training.config import ConfigError, Settings
from training.data.dataset import EvaluationCrops, UnreadablePictureError, collate, load_pictures
from training.data.labels import Kind
from training.fitting.checkpoints import Checkpoints, DiskError, list_checkpoints
from training.fitting.fit import Result, fit, read_result
from training.fitting.log import is_best, stale_evaluations
from training.fitting.trainer import NonFiniteError, Trainer

Configure = Callable[..., Settings]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert torch.equal(values, theirs[name]), name


def moments(folder: Path) -> dict[str, Tensor]:
    state = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    return {f"{i}.{name}": v for i, values in state.items() for name, v in values.items()}


def evaluations(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    measured = ("eval_loss", "eval_accuracy", "step")
    return [{name: line[name] for name in measured} for line in lines if "eval_loss" in line]


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send this process a SIGTERM during the step after `steps` steps."""
    original = Trainer.compute_loss

    def compute(self: Trainer, *arguments: Any) -> Tensor:
        if self.step == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "compute_loss", compute)


def test_eight_pictures_are_overfitted(tmp_path: Path) -> None:
    file = make_tree(tmp_path / "data", 2, side=64)
    settings = small_settings(
        file,
        'data.kinds=["authentic", "inpaint", "blended", "splice"]',
        "data.padding=0",
        "augment.probability=0",
        "augment.flip=0",
        "start.drop_path=0.0",
        "train.batch_size=8",
        "train.learning_rate=1e-3",
        "train.epochs=70",
        "train.evaluate_every=1000",
        "train.log_every=20",
    )
    assert fit(settings, tmp_path / "run").ending == "epochs"
    model = checkpoint.load(tmp_path / "run" / "model")
    crops = EvaluationCrops(load_pictures([str(file)], "train", settings.data.kinds), settings)
    batch = collate([crops[i] for i in range(8)])
    with torch.no_grad():
        output = model(to_levels(batch["tiles"]))
    assert torch.equal(output.logits > 0, batch["labels"] > 0.5)
    for head in ("ai", "manipulation"):
        mask = F.interpolate(output[head][:, None], (64, 64), mode="bilinear")[:, 0] > 0
        assert (mask == (batch[f"{head}_labels"] > 0)).float().mean() > 0.9, head


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    root = tmp_path_factory.mktemp("uninterrupted")
    torch.set_num_threads(1)
    settings = small_settings(
        make_tree(root / "data", 2), "train.epochs=2", "train.ema_decay=0.9", "train.log_every=2"
    )
    result = fit(settings, root / "run")
    assert result == Result("epochs", 6, result.best_accuracy, 0)
    return settings, root / "run"


@pytest.mark.parametrize("steps", [1, 3])
def test_resumed_equals_uninterrupted(
    uninterrupted: tuple[Settings, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    settings, reference = uninterrupted
    stop_after(monkeypatch, steps - 1)
    run = tmp_path / "run"
    assert fit(settings, run).ending == "signal"
    assert read_result(run) is None
    assert [path.name for path in list_checkpoints(run)][-1] == f"checkpoint-{steps}"
    monkeypatch.undo()
    assert fit(settings, run, resume=True).ending == "epochs"
    for folder in ("checkpoint-6", "model"):
        assert_same(weights(run / folder), weights(reference / folder))
    assert_same(moments(run / "checkpoint-6"), moments(reference / "checkpoint-6"))
    average = "checkpoint-6/average.safetensors"
    assert_same(load_file(run / average), load_file(reference / average))
    assert evaluations(run) == evaluations(reference)
    assert read_result(run) == read_result(reference)


def test_resumed_run_takes_changed_settings(
    uninterrupted: tuple[Settings, Path], tmp_path: Path
) -> None:
    settings, reference = uninterrupted
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    changed = {"learning_rate": 1e-6, "weight_decay": 0.5, "epochs": 3}
    train = settings.train.model_copy(update=changed)
    fit(settings.model_copy(update={"train": train}), run, resume=True)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rates = {line["learning_rate"] for line in lines if line["step"] > 6 and "loss" in line}
    assert rates == {1e-6}
    groups = torch.load(run / "checkpoint-9/optimizer.pt", weights_only=True)["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


def test_run_writes_its_files(uninterrupted: tuple[Settings, Path]) -> None:
    settings, run = uninterrupted
    assert config.load(run / "config.toml") == settings
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-3", "checkpoint-6"]
    assert not (run / "unfinished").exists()
    assert list((run / "tensorboard").iterdir())
    kept = checkpoint.load(run / "model")
    assert (kept.config.trained, kept.config.crop_size) == (True, 64)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    line = next(line for line in lines if "loss" in line)
    assert line.keys() >= {"samples_per_second", "waiting_share", "ai_loss", "manipulation_loss"}
    assert 0 <= line["waiting_share"] <= 1


def test_folder_contains_one_run(uninterrupted: tuple[Settings, Path]) -> None:
    settings, run = uninterrupted
    with pytest.raises(ConfigError, match="already holds a run"):
        fit(settings, run)


def test_accumulated_parts_make_one_step(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch norm frozen, halves of a batch give the gradient of the whole."""
    monkeypatch.setattr(
        GammaModel, "train", lambda self, mode=True: torch.nn.Module.train(self, False)
    )
    options = ("train.batch_size=12", "start.drop_path=0.0", "augment.probability=0")
    losses = {}
    for parts in (1, 3):
        run = tmp_path / str(parts)
        fit(configure(*options, f"train.accumulation={parts}"), run)
        line = json.loads((run / "log.jsonl").read_text().splitlines()[0])
        losses[parts] = (line["loss"], line["grad_norm"])
    assert losses[3] == pytest.approx(losses[1], rel=1e-4)


def test_features_of_the_small_recipe_work_together(configure: Configure, tmp_path: Path) -> None:
    options = (
        "data.pairs=true",
        "data.workers=1",
        "augment.jitter=1",
        "model.input=cooccurrence",
        "model.input_channels=4",
        "start.cooccurrence_crops=32",
        "train.accumulation=2",
        "train.precision=bfloat16",
        "train.schedule=cosine",
        "train.warmup_steps=1",
        "train.max_grad_norm=1",
        "train.ema_decay=0.5",
    )
    assert fit(configure(*options), tmp_path / "run").step == 3
    assert checkpoint.load(tmp_path / "run" / "model").config.trained


def test_non_finite_loss_stops_and_names_the_pictures(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.compute_loss

    def spoil(self: Trainer, inputs: dict[str, Any], *arguments: Any) -> Tensor:
        if self.step == 1:
            inputs["pixel_values"][0] = torch.nan
        return original(self, inputs, *arguments)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "compute_loss", spoil)
        with pytest.raises(NonFiniteError, match=r"step 2: .* not finite.*\.png"):
            fit(configure(), run)
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-1"]
    assert all(values.isfinite().all() for values in weights(run / "checkpoint-1").values())
    assert fit(configure(), run, resume=True).ending == "epochs"


def test_unreadable_pictures_are_replaced_and_counted(
    configure: Configure, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree.parent / "splice-0.png").write_bytes(b"nothing")
    result = fit(configure(), tmp_path / "run")
    assert result.unreadable == 1
    assert "splice-0.png" in capsys.readouterr().err


def test_unreadable_pictures_can_end_the_run(
    configure: Configure, tree: Path, tmp_path: Path
) -> None:
    whole = (tree.parent / "splice-0.png").read_bytes()
    (tree.parent / "splice-0.png").write_bytes(b"nothing")
    settings, run = configure("data.unreadable=fail"), tmp_path / "run"
    with pytest.raises(UnreadablePictureError, match=r"splice-0\.png"):
        fit(settings, run)
    assert len(list_checkpoints(run)) == 1
    (tree.parent / "splice-0.png").write_bytes(whole)
    assert fit(settings, run, resume=True).ending == "epochs"


def test_full_disk_keeps_the_last_checkpoint(configure: Configure, tmp_path: Path) -> None:
    settings, run = configure("train.checkpoint_every=1"), tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    original = Checkpoints.save

    def save_in_little_room(self: Checkpoints, step: int, *arguments: Any) -> None:
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))
        original(self, step, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_in_little_room)
        try:
            with pytest.raises(DiskError, match=r"at step 2.*checkpoint-1 is complete"):
                fit(settings, run)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-1"]
    assert fit(settings, run, resume=True).ending == "epochs"


def test_without_validation_the_last_network_is_kept(
    configure: Configure, tree: Path, tmp_path: Path
) -> None:
    text = tree.read_text().splitlines()
    tree.write_text("\n".join(line for line in text if '"train"' in line) + "\n")
    with pytest.raises(ConfigError, match="early stopping needs"):
        fit(configure("stopping.patience=5"), tmp_path / "run")
    assert fit(configure(), tmp_path / "run").best_accuracy is None
    run = tmp_path / "run"
    assert_same(weights(run / "model"), weights(run / "checkpoint-3"))


@pytest.mark.parametrize(
    ("values", "stale"),
    [
        ([0.5], 0),
        ([0.5, 0.505, 0.509], 2),
        ([0.5, 0.505, 0.51], 0),
        ([0.5, 0.7, 0.6, 0.7], 2),
    ],
)
def test_improvements_below_delta_do_not_count(values: list[float], stale: int) -> None:
    assert stale_evaluations(values, 0.01) == stale


def test_best_value_exceeds_all_earlier_ones() -> None:
    assert is_best([0.5])
    assert is_best([0.5, 0.505])
    assert not is_best([0.5, 0.5])


def test_early_stopping_ends_a_run(configure: Configure, tmp_path: Path) -> None:
    result = fit(configure("stopping.patience=1", "stopping.delta=1", "train.epochs=9"), tmp_path)
    assert (result.ending, result.step) == ("early stopping", 6)


def test_command_stops_on_sigterm(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "small.toml", tmp_path / "run"
    config.save(
        small_settings(tree, "train.epochs=400", f"data.kinds={[str(k) for k in Kind]}"), file
    )
    pipe = tmp_path / "errors"
    with started(pipe, "fit", str(file), "--out", str(run)) as process:
        with pipe.open() as errors:
            for line in errors:
                if line.startswith("step 2:"):
                    process.terminate()
                if line.startswith("resume with"):
                    assert "--resume" in line
        process.join()
        assert process.exitcode == 143
    step = int(list_checkpoints(run)[-1].name.rpartition("-")[2])
    assert step >= 2
    settings = config.load(run / "config.toml", [f"train.epochs={step // 3 + 1}"])
    assert fit(settings, run, resume=True).ending == "epochs"
    said = capsys.readouterr().err
    assert f"resuming from {run}/checkpoint-{step}" in said
    assert "changed since the run began: train.epochs" in said


def test_command_names_a_wrong_setting(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    config.save(small_settings(tree), file)
    command = ["fit", str(file), "--out", str(tmp_path / "run"), "--set", "train.sed=1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "train.sed: no such setting; did you mean train.seed?" in done.stderr
