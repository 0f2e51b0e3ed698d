"""Calibration of scores with a known result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pictures.findings import UNTRAINED, Thresholds, View
from training.data.changes import RAW
from training.data.labels import Kind
from training.data.manifest import read
from training.measuring import calibrate, calibration_report
from training.measuring.calibrate import CalibrationError, Sample
from training.measuring.calibration_report import Calibration
from training.measuring.scores import Job


def sample(kind: Kind, logits: Sequence[float], **histograms: list[list[int]]) -> Sample:
    return Sample(
        set_name="s",
        path="p",
        sha256="h",
        kind=kind,
        change="raw",
        logits=tuple(logits),
        histograms=histograms,
    )


def choose(samples: Sequence[Sample]) -> Calibration:
    return calibrate.calibrate(
        samples,
        view=View.TILED,
        pooling="mean",
        part_offset=None,
        temperature=1.0,
        thresholds=UNTRAINED,
    )


def overconfident(count: int, temperature: float) -> list[Sample]:
    """Samples with calibrated logits multiplied by a temperature."""
    rng = np.random.default_rng(0)
    truth = np.arange(count) % 2
    logits = rng.normal(4 * truth - 2, 2)  # log-likelihood ratio of the two normals: itself
    return [
        sample(Kind.SYNTHETIC if t else Kind.AUTHENTIC, [temperature * x])
        for t, x in zip(truth, logits, strict=True)
    ]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_known_temperature_is_found(temperature: float) -> None:
    found = choose(overconfident(8_000, temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.08)
    after = found.poolings[found.pooling].nll
    assert after <= found.nll_before + 1e-9


def test_glance_has_its_own_calibration() -> None:
    tiled = overconfident(4_000, 1.0)
    samples = [s.model_copy(update={"glance_logit": 3 * s.logits[0]}) for s in tiled]
    forged = sample(Kind.BLENDED, [9.0]).model_copy(update={"glance_logit": -9.0})
    found = choose([*samples, forged]).glance
    assert found is not None
    assert found.temperature == pytest.approx(3.0, rel=0.08)
    assert found.at_rate["uncertain"] < found.at_rate["middle"] < found.at_rate["ai_generated"]
    assert choose(tiled).glance is None


def test_thresholds_keep_their_false_positive_rates() -> None:
    found = choose(overconfident(2_000, 2.0))
    assert found.false_positive_rates == {"uncertain": 0.1, "middle": 0.05, "ai_generated": 0.01}
    rates = list(found.true_positive_rates.values())
    assert rates == sorted(rates, reverse=True)
    assert found.thresholds["uncertain"] == found.at_rate["uncertain"]
    assert found.thresholds["ai_generated"] == found.at_rate["ai_generated"]
    assert len(found.notes) == 2  # on the masks, which are not there


def test_threshold_is_a_midpoint_and_few_pictures_are_noted() -> None:
    negatives, positives = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.6, 0.9])
    assert calibrate.threshold_at(negatives, positives, 0.0) == pytest.approx(0.5)
    assert calibrate.threshold_at(negatives, positives, 0.25) == pytest.approx(0.35)
    assert calibrate.threshold_at(negatives, np.array([0.05]), 0.0) == pytest.approx(0.7)
    samples = [sample(Kind.AUTHENTIC, [-1.0]), sample(Kind.SYNTHETIC, [1.0])]
    assert "too few for a false positive rate of 1%" in "".join(choose(samples).notes)


def test_better_pooling_is_chosen() -> None:
    rng = np.random.default_rng(0)

    def tiles(generated: bool) -> list[float]:
        values = rng.normal(-2, 0.5, 16)
        values[0] += 4 * generated  # one tile of sixteen tells
        return values.tolist()

    samples = [
        sample(Kind.BLENDED if i % 2 else Kind.AUTHENTIC, tiles(i % 2 == 1)) for i in range(400)
    ]
    found = choose(samples)
    assert found.pooling == "max"
    assert found.poolings["max"].auc > found.poolings["mean"].auc


def test_noise_of_tiles_beside_a_good_glance_is_damped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def whole(generated: bool, part: float) -> Sample:
        glance = rng.normal(3 if generated else -3, 2)
        kind = Kind.SYNTHETIC if generated else Kind.AUTHENTIC
        return sample(kind, [glance + part]).model_copy(update={"glance_logit": glance})

    samples = [whole(i % 2 == 1, rng.normal(0, 3)) for i in range(600)]
    samples += [
        sample(Kind.BLENDED, [3.0]).model_copy(update={"glance_logit": -6.0}) for _ in range(60)
    ]
    found = choose(samples)
    assert found.part_offset is not None
    assert found.part_offset < -3
    summed = calibrate.pool(samples, "mean", None)
    labels = np.array([s.ai_generated for s in samples])
    ones = np.ones(len(labels))
    assert found.poolings["mean"].auc > calibrate.area_under_roc(labels, summed, ones)
    assert found.poolings[found.pooling].nll < found.nll_before
    (tmp_path / "config.json").write_text("{}")
    calibration_report.store(found, tmp_path, crop_size=96, part_gain=0.5)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["part_offset"], stored["part_gain"]) == (found.part_offset, 0.5)
    assert found.glance is not None
    at_five = found.glance.temperature * np.log(1 / (1 / found.glance.at_rate["middle"] - 1))
    assert stored["whole_offset"] == pytest.approx(-at_five)


def test_without_glance_there_is_nothing_to_combine() -> None:
    found = choose(overconfident(100, 1.0))
    assert (found.part_offset, found.whole_offset) == (None, None)


def histogram(inside: Sequence[int], outside: Sequence[int]) -> list[list[int]]:
    """Pixels of the given levels, 0 to 255."""
    return [np.bincount(levels, minlength=256).tolist() for levels in (outside, inside)]


def test_mask_threshold_and_area_come_from_the_masks() -> None:
    region = histogram([200] * 30, [90] * 10 + [10] * 60)
    clean = [histogram([], [250] * n + [10] * (1000 - n)) for n in [0] * 10 + list(range(10))]
    samples = [sample(Kind.SPLICE, [-1.0], manipulation=region)] * 3
    samples += [sample(Kind.AUTHENTIC, [-1.0], manipulation=h, ai=h) for h in clean]
    samples.append(sample(Kind.SYNTHETIC, [1.0], ai=histogram([9] * 100, [])))
    found = choose(samples)
    assert found.mask_levels.keys() == {"manipulation"}
    assert 90 / 255 < found.mask_levels["manipulation"] < 200 / 255
    assert found.mask_f1 == {"manipulation": 1}
    assert found.thresholds["mask"] == 0.5
    assert found.thresholds["manipulated_area"] == 0.008  # one of twenty has more
    stored = Thresholds(**found.thresholds)
    assert stored.uncertain <= stored.ai_generated


def test_uninformative_masks_do_not_mark_everything() -> None:
    noise = list(range(100))
    samples = [sample(Kind.SPLICE, [-1.0], manipulation=histogram(noise, noise))] * 3
    samples += [sample(Kind.AUTHENTIC, [-1.0], manipulation=histogram([], noise))] * 3
    samples.append(sample(Kind.SYNTHETIC, [1.0]))
    assert 94 / 255 < choose(samples).mask_levels["manipulation"] < 1


def test_each_head_has_its_own_offset(tmp_path: Path) -> None:
    bright, dark = histogram([200] * 30, [90] * 70), histogram([60] * 30, [20] * 70)
    samples = [sample(Kind.BLENDED, [1.0], ai=bright, manipulation=dark)] * 3
    samples += [sample(Kind.AUTHENTIC, [-1.0])] * 3
    found = choose(samples)
    assert 90 / 255 < found.mask_levels["ai"] < 200 / 255
    assert 20 / 255 < found.mask_levels["manipulation"] < 60 / 255
    (tmp_path / "config.json").write_text("{}")
    calibration_report.store(found, tmp_path, crop_size=96)
    offsets = json.loads((tmp_path / "config.json").read_text())["mask_offsets"]
    for head, level in found.mask_levels.items():
        shifted = np.log(level / (1 - level)) + offsets[head]
        assert 1 / (1 + np.exp(-shifted)) == pytest.approx(0.5)


def test_without_masks_their_thresholds_are_kept() -> None:
    found = choose(overconfident(100, 1.0))
    kept = UNTRAINED
    assert found.thresholds["mask"] == kept.mask
    assert found.thresholds["manipulated_area"] == kept.manipulated_area
    assert found.mask_f1 == {}
    assert found.notes[-2].endswith("its offset is not calibrated")


def test_one_class_is_refused() -> None:
    with pytest.raises(CalibrationError, match="0 AI-generated pictures and 1 others"):
        choose([sample(Kind.AUTHENTIC, [0.0])])


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_of_other_splits_are_refused(tree: Path, tmp_path: Path, split: str) -> None:
    row = next(iter(read(tree))).model_copy(update={"split": split})
    jobs = [Job("set", row, tree.parent, RAW)]
    with pytest.raises(CalibrationError, match=f"belongs to split {split}"):
        calibrate.gather(None, jobs, View.TILED, tmp_path / "kept", lambda: None)  # type: ignore[arg-type]


def test_only_the_serving_rules_of_a_config_change(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"backbone": "mit_b0", "temperature": 1.0, "version": "7"}))
    found = choose(overconfident(100, 2.0))
    calibration_report.store(found, tmp_path, crop_size=96)
    stored = json.loads(config.read_text())
    assert (stored["backbone"], stored["version"]) == ("mit_b0", "7")
    assert stored["temperature"] == found.temperature
    assert stored["thresholds"] == found.thresholds
    report = Calibration.model_validate_json(
        (tmp_path / calibration_report.REPORT_FILE).read_text()
    )
    assert report == found
    assert sorted(f.name for f in tmp_path.iterdir()) == ["calibration.json", "config.json"]
