"""The canary detects a network whose outputs have changed."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model import canary, checkpoint
from model.canary import TOLERANCE, Canary, ModelSickError
from model.checkpoint import CANARY_FILE, CONFIG_FILE, WEIGHTS_FILE, CheckpointError
from model.detector import Detector
from model.engine import ModelOutputError
from pictures.findings import View

LIMITS = {"max_pixels": 1_000_000, "max_tiles": 4}
PRIOR = {"prior": "clip_vit_b16"}


def load(source, **options):
    return Detector.from_pretrained(
        source and str(source), device="cpu", **{"dtype": "float32"} | options, **LIMITS
    )


@pytest.fixture
def exported(make_model, tmp_path):
    """A checkpoint with its canary."""
    checkpoint.save(make_model(crop_size=64), tmp_path)
    checkpoint.save_canary(canary.choose(load(tmp_path)), tmp_path)
    return tmp_path


def edit(directory, change):
    weights = load_file(directory / WEIGHTS_FILE)
    change(weights)
    save_file(weights, directory / WEIGHTS_FILE)


def test_built_in_model_matches_its_canary():
    detector = load(None, dtype="auto")
    assert detector._canary is not None
    low, high = detector._canary.readings[:, 0]
    assert high - low > 0.5  # far more than the tolerance: a network that is stuck is found
    detector.check()


def test_canary_is_small():
    assert (checkpoint.BUILT_IN / CANARY_FILE).stat().st_size < 30_000


def test_exported_network_passes_with_and_without_a_canary(exported):
    load(exported).warm_up()
    (exported / CANARY_FILE).unlink()
    load(exported).warm_up()


@pytest.mark.parametrize("brings_canary", [True, False])
@pytest.mark.parametrize("name", ["classifier.weight", "decoders.manipulation.mlp.weight"])
def test_nan_is_detected_in_any_part(exported, photo, name, brings_canary):
    edit(exported, lambda weights: weights[name].view(-1)[0].fill_(torch.nan))
    if not brings_canary:
        (exported / CANARY_FILE).unlink()
    detector = load(exported)
    with pytest.raises(ModelSickError, match=r"^NaN model: gamma untrained on cpu"):
        detector.check()
    with pytest.raises(ModelSickError, match=r"^NaN model: .* at warm-up"):
        detector.warm_up()
    with pytest.raises(ModelOutputError):
        detector.examine(photo(80, 70), View.TILED)


def test_nan_weights_without_effect_on_outputs_are_detected(exported):
    (exported / CANARY_FILE).unlink()
    name = "encoder.stages.0.blocks.1.attention.q_proj.weight"
    edit(exported, lambda weights: weights[name].view(-1)[0].fill_(torch.nan))
    with pytest.raises(ModelSickError, match=r"^NaN model: gamma untrained on cpu has weights"):
        load(exported).check()


@pytest.mark.usefixtures("small_tower")
def test_nan_in_the_glance_is_detected(make_model, photo):
    detector = Detector(make_model(crop_size=64, **PRIOR), device="cpu", **LIMITS)
    with torch.no_grad():
        detector._engine._model.glance.tokens[0].bias[0] = torch.inf
    for view in (View.GLANCE, View.CENTER):
        with pytest.raises(ModelOutputError):
            detector.examine(photo(80, 70), view)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w["classifier.bias"].add_(3), "AI probability"),
        (lambda w: w["decoders.ai.mask_classifier.bias"].sub_(9), "mean of the AI mask"),
    ],
)
def test_other_finite_outputs_are_detected(exported, change, complaint):
    edit(exported, change)
    with pytest.raises(ModelSickError, match=rf"{complaint} of a known picture is 0\.\d+ instead"):
        load(exported).check()


def test_rounding_is_tolerated(exported):
    detector = load(exported)
    pictures, readings = detector._canary
    canary.check(detector, Canary(pictures, readings + TOLERANCE * 0.9))
    with pytest.raises(ModelSickError):
        canary.check(detector, Canary(pictures, readings + TOLERANCE * 1.1))


@pytest.mark.usefixtures("small_tower")
def test_glance_alone_has_a_canary_reading(make_model):
    detector = Detector(make_model(crop_size=64, **PRIOR), device="cpu", **LIMITS)
    made = canary.choose(detector)
    assert made.pictures.shape == (2, canary.SIDE, canary.SIDE, 3)
    assert made.readings.shape == (2, 4)
    canary.check(detector, made)
    with pytest.raises(ModelSickError, match="do not belong together"):
        canary.check(detector, Canary(made.pictures, made.readings[:, :3]))


def test_invalid_canary_is_refused(exported):
    save_file({"readings": torch.zeros(1)}, exported / CANARY_FILE)
    with pytest.raises(CheckpointError, match=r"canary\.safetensors: not a canary"):
        load(exported)


def test_other_contents_have_another_digest(exported):
    digests = [load(exported).info.digest]
    edit(exported, lambda weights: weights["classifier.bias"].add_(1e-3))
    digests.append(load(exported).info.digest)
    config = (exported / CONFIG_FILE).read_text()
    (exported / CONFIG_FILE).write_text(config.replace('"temperature": 1.0', '"temperature": 1.5'))
    digests.append(load(exported).info.digest)
    assert len(set(digests)) == 3
    assert all(len(digest) == 16 for digest in digests)
    assert load(exported).info.digest == digests[-1]


def test_other_weights_of_the_prior_have_another_digest(make_model, tmp_path, monkeypatch):
    checkpoint.save(make_model(crop_size=64, **PRIOR), tmp_path)
    first = checkpoint.digest(tmp_path)
    other = tmp_path / "tower.safetensors"
    save_file({"other": torch.zeros(1)}, other)
    monkeypatch.setattr("model.tower.BUILT_IN", other)
    assert checkpoint.digest(tmp_path) != first


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ('"temperature": NaN', "NaN is not a number"),
        ('"temperature": 1e999', "temperature must be positive and finite"),
        ('"mask_offsets": {"ai": 1e999}', "mask_offsets must be finite"),
    ],
)
def test_config_values_that_cause_nan_are_refused(exported, written, complaint):
    config = (exported / CONFIG_FILE).read_text()
    name = written.partition(":")[0]
    old = {'"temperature"': '"temperature": 1.0', '"mask_offsets"': '"mask_offsets": {}'}[name]
    assert old in config
    (exported / CONFIG_FILE).write_text(config.replace(old, written))
    with pytest.raises(CheckpointError, match=complaint):
        load(exported)


def test_choice_is_deterministic(exported):
    assert np.array_equal(canary.choose(load(exported)).pictures, load(exported)._canary.pictures)
