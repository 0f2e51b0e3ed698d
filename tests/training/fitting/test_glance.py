"""The glance: cached features, the MLP, and runs that use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from model import tower, views
from model.config import GammaConfig
from model.engine import to_levels
from model.glance import GlanceBranch
from model.network import GammaModel
from tests.conftest import photo
from training.cli import app
from training.config import ConfigError, GlanceSettings, Settings, save
from training.data import manifest
from training.data.dataset import load_pictures
from training.data.labels import Kind
from training.fitting import glance
from training.fitting.fit import fit
from training.fitting.glance import Features
from training.fitting.network import build
from training.fitting.tower_cache import TowerCache

pytestmark = pytest.mark.usefixtures("small_tower")


@pytest.fixture
def branch() -> GlanceBranch:
    torch.manual_seed(0)
    return GlanceBranch((32, 64, 160, 256), 32)


def model() -> GammaModel:
    torch.manual_seed(0)
    return GammaModel(GammaConfig(backbone="mit_b0", decoder_channels=16, prior="clip_vit_b16"))


def features(sources: list[str], labels: list[bool], tokens: torch.Tensor) -> Features:
    count = len(labels)
    return Features(
        tokens.half(),
        np.arange(count),
        np.zeros(count, int),
        np.array(labels),
        np.array(sources),
        np.ones(count, bool),
    )


def extract(branch: GlanceBranch, tree: Path, folder: Path, copies: int) -> Features:
    rows = glance.read_rows([str(tree)])
    return glance.extract(branch, rows, GlanceSettings(copies=copies), folder, lambda: None)


def test_features_are_computed_once(
    branch: GlanceBranch, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(branch, tree, tmp_path / "kept", 1)
    monkeypatch.setattr(GlanceBranch, "look", None)
    again = extract(branch, tree, tmp_path / "kept", 1)
    assert torch.equal(first.tokens, again.tokens)
    assert len(first.tokens) > 0


def test_features_of_other_pictures_or_copies_are_not_reused(
    branch: GlanceBranch, tree: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    before = extract(branch, tree, kept, 0)
    assert len(extract(branch, tree, kept, 1).tokens) > len(before.tokens)
    manifest.write(list(manifest.read(tree))[::-1], tree)
    after = extract(branch, tree, kept, 0)
    assert torch.equal(after.tokens, extract(branch, tree, tmp_path / "new", 0).tokens)
    assert not torch.equal(after.tokens, before.tokens)


def test_only_whole_training_pictures_have_copies(
    branch: GlanceBranch, tree: Path, tmp_path: Path
) -> None:
    found = extract(branch, tree, tmp_path / "kept", 2)
    # Two scenes to train and two to validate, each as a photograph and as a generated picture.
    assert found.copy[found.train].tolist() == [0, 1, 2] * 4
    assert found.copy[~found.train].tolist() == [0] * 4
    assert sorted(found.labels[found.copy == 0].tolist()) == [False] * 4 + [True] * 4


def test_damaged_picture_is_skipped(branch: GlanceBranch, tree: Path, tmp_path: Path) -> None:
    (tree.parent / "synthetic-0.png").write_bytes(b"no picture")
    assert len(extract(branch, tree, tmp_path / "kept", 0).tokens) == 7


def test_augmentation_depends_only_on_the_generator() -> None:
    picture = np.asarray(photo(300, 200, 1))
    shapes = set()
    for seed in range(20):
        ours, again = (glance.augment_copy(picture, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(ours, again)
        assert ours.dtype == np.uint8
        shapes.add(ours.shape)
    assert len(shapes) > 10


def test_classes_and_sources_have_equal_weight() -> None:
    sources = ["a"] * 6 + ["b"] * 2 + ["c"] * 4
    labels = [False] * 8 + [True] * 4
    found = features(sources, labels, torch.zeros(12, tower.TOKENS))
    found = replace(found, copy=np.array([0, 1, 2] * 4))
    weights = glance.weigh(found, np.array([True] * 11 + [False]), 0.5)
    assert weights[11] == 0
    assert weights[1] == weights[2] == weights[0] / 2
    assert weights.sum() == pytest.approx(11)
    assert weights[:6].sum() == pytest.approx(weights[6:8].sum().item())
    assert weights[:8].sum() == pytest.approx(weights[8:].sum().item())


def test_source_that_is_left_out_is_not_memorised() -> None:
    """Features that identify the source but not the class must not help."""
    generator = torch.Generator().manual_seed(0)
    sources = [f"{'ai' if n % 2 else 'real'}{n // 40}-{n % 2}" for n in range(320)]
    labels = [bool(n % 2) for n in range(320)]
    marks = {name: torch.randn(tower.TOKENS, generator=generator) for name in sorted(set(sources))}
    noise = torch.randn(320, tower.TOKENS, generator=generator)
    by_source = torch.stack([marks[name] for name in sources]) + 0.1 * noise
    by_class = torch.where(torch.tensor(labels)[:, None], 0.3, -0.3) + noise
    settings = GlanceSettings(epochs=4)
    for tokens, lowest, highest in ((by_source, 0.0, 0.8), (by_class, 0.95, 1.0)):
        found = features(sources, labels, tokens)
        auc, results = glance.leave_sources_out(model, found, settings, 4)
        assert lowest <= auc <= highest
        assert sum(result.n for result in results) == 320
    seen = features(sources, labels, by_source)
    network = model()
    glance.fit(network, seen, glance.weigh(seen, seen.train, 1.0), settings)
    assert np.mean((glance.score(network, seen) > 0) == seen.labels) > 0.95


def test_fit_forgets_earlier_weights_and_keeps_a_frozen_classifier() -> None:
    """Otherwise cross-validation from a checkpoint would score pictures that it was trained on."""
    tokens = torch.randn(64, tower.TOKENS, generator=torch.Generator().manual_seed(0))
    found = features(["a", "b"] * 32, [False, True] * 32, tokens)
    fresh, used = model(), model()
    with torch.no_grad():
        for weight in used.parameters():
            if weight.shape[-1] == tower.TOKENS:
                weight.normal_()
    for network in (fresh, used):
        network.classifier.requires_grad_(False)
        glance.fit(network, found, glance.weigh(found, found.train, 1.0), GlanceSettings(epochs=2))
    assert torch.equal(fresh.classifier.weight, model().classifier.weight)
    assert np.array_equal(glance.score(fresh, found), glance.score(used, found))


def test_cached_features_equal_those_of_the_tower(
    branch: GlanceBranch, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = load_pictures([str(tree)], "train", tuple(Kind))
    kept = TowerCache(tmp_path / "kept", pictures)
    kept.fill(branch, 10**6, lambda: None)
    pixels = torch.tensor(views.glance(pictures.read(3, 10**6)))[None]
    expected = branch.look(to_levels(pixels))
    found = kept.of([3, 3], [False, True], torch.device("cpu"))
    torch.testing.assert_close(found.patches[:1], expected.patches, atol=0.05, rtol=0.02)
    torch.testing.assert_close(found.tokens[:1], expected.tokens, atol=0.05, rtol=0.02)
    assert torch.equal(found.patches[1], found.patches[0].flip(1))
    monkeypatch.setattr(GlanceBranch, "look", None)
    TowerCache(tmp_path / "kept", pictures).fill(branch, 10**6, lambda: None)


def test_cached_features_of_other_rows_are_not_reused(
    branch: GlanceBranch, tree: Path, tmp_path: Path
) -> None:
    before = load_pictures([str(tree)], "train", tuple(Kind))
    TowerCache(tmp_path / "kept", before).fill(branch, 10**6, lambda: None)
    manifest.write(list(manifest.read(tree))[::-1], tree)
    pictures = load_pictures([str(tree)], "train", tuple(Kind))
    found = []
    for folder in ("kept", "new"):
        cache = TowerCache(tmp_path / folder, pictures)
        cache.fill(branch, 10**6, lambda: None)
        found.append(cache.patches)
    np.testing.assert_array_equal(found[0], found[1])
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_fit_continues_from_a_fitted_glance(
    configure: Callable[..., Settings], tree: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    save(configure("model.prior=clip_vit_b16", "glance.epochs=2"), config)
    runner = CliRunner()
    first, second, third = (tmp_path / name for name in ("glance", "rest", "again"))
    frozen = 'start.frozen=["glance.tokens", "classifier"]'
    command = ["glance", str(config), "--out", str(first), "--set", frozen]
    result = runner.invoke(app, command)
    assert result.exit_code == 1
    assert "cross-validation needs two sources" in result.output
    result = runner.invoke(app, [*command, "--folds", "0"])
    assert result.exit_code == 0, result.output
    start = f"start.checkpoint={first / 'model'}"
    command = ["fit", str(config), "--out", str(second), "--set", start, "--set", frozen]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    before, after = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    for name, weight in before.items():
        stays = name.startswith(("glance.tokens", "classifier"))
        assert not stays or torch.equal(weight, after[name]), name
    assert not torch.equal(before["glance.adapter.weight"], after["glance.adapter.weight"])
    start = f"start.checkpoint={second / 'model'}"
    command = ["glance", str(config), "--out", str(third), "--folds", "0", "--set", start]
    result = runner.invoke(app, [*command, "--set", frozen, "--set", "glance.seed=1"])
    assert result.exit_code == 0, result.output
    replaced = load_file(third / "model" / "model.safetensors")
    changed = {name for name, weight in after.items() if not torch.equal(weight, replaced[name])}
    assert changed == {f"glance.tokens.{n}.{part}" for n in (0, 3) for part in ("weight", "bias")}


def test_each_split_has_its_own_cache(
    configure: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are numbered per split, and training continues after an evaluation."""
    used: list[str] = []
    original = TowerCache.of

    def of(self: TowerCache, *arguments: Any) -> Any:
        used.append(Path(self.patches.filename).parent.name)
        return original(self, *arguments)

    monkeypatch.setattr(TowerCache, "of", of)
    settings = configure("model.prior=clip_vit_b16", "train.ema_decay=0.9", "data.padding=0")
    fit(settings, tmp_path / "run")
    # Three steps over the 12 training rows, then three batches of as many validation rows.
    assert used == ["train"] * 3 + ["validation"] * 3


def test_unknown_module_cannot_be_frozen(configure: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match=r"start\.frozen: the network has no module glimpse"):
        build(configure('start.frozen=["glimpse"]'))


def test_without_prior_fit_is_refused(configure: Callable[..., Settings], tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    save(configure(), config)
    result = CliRunner().invoke(app, ["glance", str(config), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "model.prior" in result.output
