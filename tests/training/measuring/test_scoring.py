"""Scoring, evaluation, robustness and export of a small network, by the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from app.contract.models import Measured
from app.contract.settings import Settings as ServiceSettings
from model import checkpoint
from model.checkpoint import load_results
from model.config import GammaConfig
from model.detector import Detector
from model.network import GammaModel
from pictures.findings import View
from tests.conftest import encode, photo
from tests.training.conftest import make_tree
from training.cli import app
from training.data import manifest
from training.data.changes import DEGRADATIONS, JPEG96, RAW, Format
from training.data.labels import Kind
from training.measuring import export, scores
from training.measuring.evaluate import Summary
from training.measuring.robustness import Robustness
from training.measuring.scores import Job, MaskUnusableError, Result
from training.measuring.suites import load_sets

pytestmark = pytest.mark.slow

LIMITS = {"max_pixels": scores.MAX_PIXELS, "max_tiles": scores.MAX_TILES}


def make_model(**fields: Any) -> GammaModel:
    torch.manual_seed(0)
    defaults = {"backbone": "mit_b0", "decoder_channels": 16, "crop_size": 64, "trained": True}
    model = GammaModel(GammaConfig(**defaults | {"version": "1"} | fields))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    checkpoint.save(make_model(), tmp_path / "run" / "model")
    return tmp_path / "run"


def invoke(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.output


def detector_of(directory: Path) -> Detector:
    return Detector.from_pretrained(str(directory), device="cpu", **LIMITS)


def test_limits_equal_service_limits() -> None:
    fields = ServiceSettings.model_fields
    assert fields["max_pixels"].default == scores.MAX_PIXELS
    assert fields["max_tiles"].default == scores.MAX_TILES


@pytest.mark.parametrize("view", [View.AUTO, View.TILED, View.CENTER])
def test_scores_equal_service_scores(run: Path, tree: Path, view: View) -> None:
    detector = detector_of(run / "model")
    (pictures,) = load_sets([tree], "validation")
    jobs = [Job("set", row, tree.parent, RAW) for row in pictures.rows]
    found = list(scores.score(detector, jobs, view, batch=5))
    assert [job for job, _ in found] == jobs
    for job, score in found:
        assert isinstance(score, scores.Score)
        served = detector.detect((tree.parent / job.row.path).read_bytes(), view)
        assert score.detection.ai_probability == pytest.approx(served.ai_probability, abs=0.01)
        assert len(score.tile_logits) == served.layout.tiles
        left, top, right, bottom = served.layout.box
        for histogram in score.histograms.values():
            assert histogram.sum() == (right - left) * (bottom - top)


def test_true_masks_follow_crop_and_view(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(encode(photo(100, 90), "PNG"))
    region = np.zeros((90, 100), np.uint8)
    region[40:50, 45:60] = 255
    Image.fromarray(region).save(tmp_path / "mask.png")
    plain = manifest.describe(tmp_path / "picture.png", tmp_path, Kind.AUTHENTIC, source_id="s")
    row = plain.model_copy(update={"kind": Kind.SPLICE, "mask": "mask.png"})
    detector = Detector(make_model(), **LIMITS)
    pixels = detector.decode((tmp_path / "picture.png").read_bytes())
    whole = detector.cut(pixels, View.CENTER).layout  # 64 x 64 from (18, 13)
    truth = scores.true_mask(Job("s", row, tmp_path, RAW), "manipulation", whole)
    assert truth is not None
    assert np.array_equal(truth, region[13:77, 18:82] > 0)
    cropped = detector.cut(pixels[5:85, 10:90], View.TILED).layout
    truth = scores.true_mask(Job("s", row, tmp_path, RAW, 80), "manipulation", cropped)
    assert truth is not None
    assert np.array_equal(truth, region[5:85, 10:90] > 0)
    with pytest.raises(MaskUnusableError, match=r"mask.png: 100 x 90 .* has 80 x 80"):
        scores.true_mask(Job("s", row, tmp_path, RAW), "manipulation", cropped)
    (tmp_path / "mask.png").unlink()
    with pytest.raises(MaskUnusableError, match=r"mask\.png"):
        scores.true_mask(Job("s", row, tmp_path, RAW), "manipulation", whole)


def test_interrupted_run_continues(
    run: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Detector.forward
    computed: list[int] = []

    def counted(self: Detector, tiles: torch.Tensor) -> Any:
        if len(computed) == fail_at:
            raise KeyboardInterrupt
        computed.append(len(tiles))
        return forward(self, tiles)

    monkeypatch.setattr(Detector, "forward", counted)
    command = ("evaluate", run, tree, "--out", tmp_path / "out", "--split", "validation")
    fail_at = 1
    done = CliRunner().invoke(app, [str(argument) for argument in command])
    assert done.exit_code != 0
    (kept,) = (tmp_path / "out" / "scores").iterdir()
    with kept.open("a") as lines:
        lines.write('{"set_name": "da')  # cut off while it was written
    assert not (tmp_path / "out" / "summary.json").exists()
    computed.clear()
    fail_at = -1
    invoke(*command)
    assert sum(computed) == 2 * 12 - 8 + 12  # both formats, less the first batch; the gallery
    results = [Result.model_validate_json(line) for line in kept.read_text().splitlines()]
    assert len({result.key for result in results}) == len(results) == 2 * 12


def test_other_settings_do_not_reuse_scores() -> None:
    model, other = make_model(), make_model(temperature=2.0)
    assert scores.fingerprint(model, 1) == scores.fingerprint(make_model(), 1)
    assert scores.fingerprint(model, 1) != scores.fingerprint(model, 2)
    assert scores.fingerprint(model, 1) != scores.fingerprint(other, 1)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.config.temperature = 1.0
    assert scores.fingerprint(model, 1) != scores.fingerprint(other, 1)


def test_evaluation(run: Path, tree: Path, tmp_path: Path) -> None:
    rows = list(manifest.read(tree))
    (tree.parent / rows[-1].path).write_bytes(b"no picture")
    generators = {Kind.SYNTHETIC: "BigGAN", Kind.INPAINT: "sd", Kind.BLENDED: "sd"}
    rows = [row.model_copy(update={"generator": generators.get(row.kind)}) for row in rows]
    manifest.write(rows, tree)
    out = tmp_path / "out"
    shown = invoke(
        *("evaluate", run, tree, "--out", out, "--split", "validation"),
        *("--crop", 80, "--resamples", 20),
    )
    summary = Summary.model_validate_json((out / "summary.json").read_text())
    assert summary.crop == 80
    assert set(summary.formats) == {"raw", "paper", "jpeg96"}
    for sets in summary.formats.values():
        report = sets["data"]
        assert report.overall is not None
        assert (report.overall.n, report.overall.n_ai) == (11, 5)
        assert set(report.overall.intervals) == {"accuracy", "balanced_accuracy", "auc"}
        assert {name: (m.n, m.n_ai) for name, m in report.generators.items()} == {
            "BigGAN": (7, 1),
            "sd": (10, 4),
        }
        assert report.sources["all"].n == 6
        assert sum(found.n for found in report.sources.values()) == 2 * 6
        low, high = report.sources["all"].interval
        assert low <= report.sources["all"].called <= high
        assert set(report.masks["manipulation"]) == {
            *("all", "authentic", "inpaint", "blended", "copy_move", "splice"),
        }
        assert report.masks["ai"]["synthetic"].n_positives == 1
        assert len(report.unreadable) == 1
    text = (out / "summary.md").read_text()
    assert text in shown
    assert "| GAMMA (paper) | 96.4 |" in text
    assert "| GAMMA (paper) | 99.1 |" in text
    measured = summary.formats["paper"]["data"].generators["BigGAN"].balanced_accuracy_at_half  # type: ignore[index]
    assert f"| **gamma 1**, at 0.5 | {100 * (measured or 0):.1f} |" in text
    table = pq.read_table(out / "pictures.parquet").to_pylist()
    assert len(table) == 3 * 12
    assert sum(line["error"] is not None for line in table) == 3
    fakes = [line for line in table if line["mode"] == "paper" and line["ai_generated"]]
    assert {line["change"] for line in fakes} == {"jpeg96"}
    assert {"ai.f1", "manipulation.auc", "verdict", "probability"} <= set(table[0])
    for name in ("roc", "reliability", "scores", "masks"):
        with Image.open(out / f"{name}.png") as plot:
            assert min(plot.size) > 100
    invoke("export", run, tmp_path / "first", "--evaluation", out / "summary.json")
    overall = summary.formats[Format.JPEG96]["data"].overall
    results = load_results(tmp_path / "first")
    measured = Measured.model_validate(results)
    assert overall is not None
    assert (measured.photographs, measured.rows[0].n) == (6, 5)
    assert measured.rows[0].auc == overall.auc
    assert [row.pictures for row in measured.rows] == ["all generators", "BigGAN", "sd"]
    assert detector_of(tmp_path / "first").info.results == results
    card = (tmp_path / "first" / "README.md").read_text()
    assert f"AUC {overall.auc:.2f}; at a false positive rate of 5 %" in card
    assert ("This is weak" in card) == ((overall.auc or 0) < 0.9)


def test_one_format_mode_is_enough_to_measure_but_not_for_every_card(
    run: Path, tree: Path, tmp_path: Path
) -> None:
    options = ("--split", "validation", "--resamples", 0, "--tile-budget", 2, "--format", "raw")
    invoke("evaluate", run, tree, "--out", tmp_path / "out", *options)
    file = tmp_path / "out" / "summary.json"
    summary = Summary.model_validate_json(file.read_text())
    assert set(summary.formats) == {"raw"}
    shown = invoke("export", run, tmp_path / "card", "--evaluation", file, code=1)
    assert "the card needs the format mode jpeg96" in shown


def test_tile_budget_limits_the_tiles() -> None:
    detector = scores.make_detector(make_model(crop_size=512), device="cpu", tile_budget=2)
    picture = np.zeros((1200, 1200, 3), np.uint8)
    assert detector.cut(picture, View.AUTO).layout.tiles == 1  # two do not cover a square
    assert detector.cut(picture, View.TILED).layout.tiles == 9


def test_robustness(run: Path, tmp_path: Path) -> None:
    out, tree = tmp_path / "out", make_tree(tmp_path / "small", 1)
    config = json.loads((run / "model" / "config.json").read_text())
    config["thresholds"] |= {"uncertain": 0.3, "ai_generated": 0.6}
    (run / "model" / "config.json").write_text(json.dumps(config))
    options = ("--split", "validation", "--resamples", 0, "--degraded", tree)
    shown = invoke("evaluate", run, tree, "--out", out, *options)
    invoke("export", run, tmp_path / "card", "--robustness", out / "robustness/robustness.json")
    out /= "robustness"
    report = Robustness.model_validate_json((out / "robustness.json").read_text())
    changes = [change.name for levels in DEGRADATIONS.values() for change in levels.values()]
    assert [condition.change for condition in report.conditions] == changes
    table = pq.read_table(out / "pictures.parquet").to_pylist()
    verdicts = {(line["change"], line["path"]): line["verdict"] for line in table}
    paths = {line["path"] for line in table}
    flipped = [verdicts["jpeg 50", p] != verdicts["raw", p] for p in paths]
    (condition,) = (c for c in report.conditions if c.change == "jpeg 50")
    assert condition.flip_rate == pytest.approx(np.mean(flipped))
    assert report.ever_flipped >= max(c.flip_rate for c in report.conditions)
    assert report.right_throughout <= report.clean.accuracy_at_half
    lowest = min(c.measures.balanced_accuracy_at_half or 0 for c in report.conditions)
    (worst,) = (c for c in report.conditions if c.change == report.worst)
    assert worst.measures.balanced_accuracy_at_half == lowest
    assert f"**{report.worst}**" in shown
    card = (tmp_path / "card" / "README.md").read_text()
    assert f"| **{report.worst}** |" in card
    assert "Do not use it" in card
    with Image.open(out / "robustness.png") as plot:
        assert min(plot.size) > 100


def test_calibrate_then_export_gives_the_same_scores(run: Path, tree: Path, tmp_path: Path) -> None:
    shown = invoke("calibrate", run, tree, "--crop-size", 96)
    assert "| ai_generated |" in shown
    assert json.loads((run / "model" / "config.json").read_text())["crop_size"] == 96
    assert sorted(f.name for f in (run / "model").iterdir()) == [
        *("README.md", "calibration.json", "config.json", "model.safetensors")
    ]
    out = tmp_path / "models" / "first"
    invoke("export", run, out)
    assert "Crops of 96 x 96 pixels" in (out / "README.md").read_text()
    assert sorted(f.name for f in out.iterdir()) == [
        *("README.md", "canary.safetensors", "config.json", "model.safetensors")
    ]
    before, after = detector_of(run / "model"), detector_of(out)
    assert after.info.version.startswith("1+")
    after.check()
    assert after.info.thresholds == before.info.thresholds
    assert after.info.thresholds.ai_generated < 1
    data = encode(photo(150, 100))
    expected, found = (d.detect(data, View.TILED) for d in (before, after))
    assert found.ai_probability == pytest.approx(expected.ai_probability, abs=1e-5)
    assert found.masks is not None
    assert expected.masks is not None
    difference = found.masks.ai.values.astype(int) - expected.masks.ai.values
    assert np.abs(difference).max() <= 1
    invoke("calibrate", out, tree, "--crop-size", 64)
    detector_of(out).check()  # the canary was written anew


def test_half_precision_is_checked_on_pictures(run: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    assert "--check" in invoke("export", run, out, "--half", code=1)
    shown = invoke("export", run, out, "--half", "--check", tree, "--version", "2")
    assert "changes a probability by at most 0.00" in shown
    weights = load_file(out / "model.safetensors")
    assert {t.dtype for t in weights.values() if t.numel() >= 5_000} == {torch.float16}
    assert {t.dtype for t in weights.values() if t.ndim == 1} == {torch.float32}
    assert detector_of(out).info.version == "2"
    data = encode(photo(100, 100))
    full, half = (
        Detector.from_pretrained(str(d), device="cpu", dtype="float32", **LIMITS)
        for d in (run / "model", out)
    )
    difference = (
        half.detect(data, View.TILED).ai_probability - full.detect(data, View.TILED).ai_probability
    )
    assert abs(difference) <= export.TOLERANCE
    assert GammaModel.from_pretrained(out).dtype == torch.float32


def test_half_precision_that_changes_scores_is_refused(
    run: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    message = invoke("export", run, tmp_path / "out", "--half", "--check", tree, code=1)
    assert "half precision changes a probability" in message
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("fields", "message"), [({"trained": False}, "trained"), ({"heads": "ai"}, "heads: ai")]
)
def test_invalid_networks_are_not_exported(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    checkpoint.save(make_model(**fields), tmp_path / "model")
    assert message in invoke("export", tmp_path, tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


def test_existing_directory_is_not_changed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "out exists" in invoke("export", run, tmp_path / "out", code=1)


def test_test_pictures_are_not_calibrated_on(
    run: Path, tree: Path, edit: Callable[..., None]
) -> None:
    for split in ("test", "train"):
        edit(split=split)
        assert f"no rows of split validation (24 {split})" in invoke("calibrate", run, tree, code=1)
    assert not (run / "model" / "calibration.json").exists()


@pytest.fixture
def edit(tree: Path) -> Callable[..., None]:
    def change(**fields: object) -> None:
        manifest.write([row.model_copy(update=fields) for row in manifest.read(tree)], tree)

    return change


def test_user_errors_are_one_line(run: Path, tree: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (
            ("evaluate", tmp_path / "none", tree, "--split", "validation"),
            "neither a directory",
        ),
        (("evaluate", run, tree, "--split", "validation", "--crop", 500), "too small for a crop"),
        (("evaluate", run, tmp_path / "none.jsonl"), "none.jsonl"),
        (("robustness", run, tree), "no rows of split test"),
    ):
        shown = invoke(*arguments, "--out", tmp_path / "out", code=1)
        assert message in shown
        assert "Traceback" not in shown


def test_push_uploads_what_was_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: dict[str, list[str]] = {}

    class Hub:
        def create_repo(self, name: str, **options: object) -> str:
            assert options["private"]
            return f"https://hub/{name}"

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
            uploads[repo_id] = sorted(f.name for f in folder_path.iterdir())

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    shown = invoke("export", run, tmp_path / "out", "--push", "me/gamma")
    assert "https://hub/me/gamma" in shown
    files = ["README.md", "canary.safetensors", "config.json", "model.safetensors"]
    assert uploads == {"me/gamma": files}


def test_jpeg_96_changes_scores_and_raw_does_not(run: Path, tree: Path) -> None:
    detector = detector_of(run / "model")
    (pictures,) = load_sets([tree], "validation")
    row = pictures.rows[0]
    jobs = [Job("s", row, tree.parent, change) for change in (RAW, JPEG96)]
    raw, jpeg = (s for _, s in scores.score(detector, jobs, View.CENTER))
    assert isinstance(raw, scores.Score)
    assert isinstance(jpeg, scores.Score)
    assert not np.array_equal(raw.tile_logits, jpeg.tile_logits)
