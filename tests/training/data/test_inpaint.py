"""Inpainting with real (tiny, random) networks, blending, resumption, plans."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import photo
from tests.training.data.forging import (
    command,
    contents,
    make_coco,
    make_maps,
    make_pictures,
    pixels,
    region,
    rows_of,
)
from training.data import autoencoder, journal, manifest, masks
from training.data.autoencoder import AutoencoderEngine, TinyFlux2
from training.data.blend import blend
from training.data.engines import EngineError, Fill, RetouchEngine, Task
from training.data.labels import LABELS, Kind, MaskLabel
from training.data.masks import MaskType

# pycocotools 2.0.11 has an `__array__` of before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def taef2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TAEF2 with random weights, in its published format: float16, `.pth`."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    tiny = TinyFlux2()
    for part in ("encoder", "decoder"):
        tensors = getattr(tiny, part).half().state_dict()
        torch.save(tensors, folder / f"taef2_{part}.pth")
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion inpainting pipeline of a few thousand random weights."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionInpaintPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=9,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    words = ("<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz")
    words += tuple(f"{word}</w>" for word in words[2:])
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])
    tokenizer.model_max_length = 77
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    folder = tmp_path_factory.mktemp("pipelines") / "tiny-diffusion"
    StableDiffusionInpaintPipeline(
        vae=vae,
        unet=unet,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def check_pairs(root: Path, out: Path) -> None:
    """Check that each generation has an inpainted and a blended picture of equal size."""
    originals = {row.source_id: row for row in manifest.read(root / "manifest.jsonl")}
    rows = rows_of(out)
    assert [row.kind for row in rows] == [Kind.INPAINT, Kind.BLENDED] * (len(rows) // 2)
    for inpainted, blended in zip(rows[::2], rows[1::2], strict=True):
        source = originals[inpainted.source_id]
        assert inpainted.mask == blended.mask is not None
        assert inpainted.split == blended.split == source.split
        for row in (inpainted, blended):
            assert (row.width, row.height) == (source.width, source.height)
        white = region(out / str(inpainted.mask))
        original, painted, mixed = (
            pixels(file) for file in (root / source.path, out / inpainted.path, out / blended.path)
        )
        np.testing.assert_array_equal(mixed[~white], original[~white])
        np.testing.assert_array_equal(mixed[white], painted[white])
        assert (painted[~white] != original[~white]).any()  # all of it was decoded


def test_taef2_matches_published_architecture() -> None:
    tiny = TinyFlux2()
    shapes = {name: tuple(t.shape) for name, t in tiny.encoder.state_dict().items()}
    assert shapes["0.weight"] == (64, 3, 3, 3)
    assert shapes["10.weight"] == (64, 64, 3, 3)
    assert "10.bias" not in shapes
    assert shapes["11.pool.0.weight"] == (256, 64, 1, 1)
    assert "11.pool.0.bias" not in shapes
    assert shapes["13.pool.1.bias"] == (256,)
    assert shapes["14.bias"] == (32,)
    assert not any(name.startswith("9.pool") for name in shapes)
    shapes = {name: tuple(t.shape) for name, t in tiny.decoder.state_dict().items()}
    assert shapes["1.weight"] == (64, 32, 3, 3)
    assert shapes["5.pool.3.weight"] == (64, 256, 1, 1)
    assert "7.bias" not in shapes
    assert shapes["18.conv.4.bias"] == (64,)
    assert shapes["19.weight"] == (3, 64, 3, 3)
    latents = tiny.encode(torch.rand(1, 3, 24, 16))
    assert latents.shape == (1, 32, 3, 2)
    assert tiny.decode(latents).shape == (1, 3, 24, 16)
    far, further = (tiny.decode(torch.full((1, 32, 1, 1), v)) for v in (1e3, 1e6))
    torch.testing.assert_close(far, further)  # latents are bounded


def test_safetensors_are_preferred_to_pickles(taef2: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for part in ("encoder", "decoder"):
        tensors = torch.load(taef2 / f"taef2_{part}.pth", weights_only=True)
        save_file(tensors, tmp_path / f"taef2_{part}.safetensors")
        (tmp_path / f"taef2_{part}.pth").write_bytes(b"not looked at")
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        first, second = (autoencoder.load(str(f), "cpu").encode(x) for f in (taef2, tmp_path))
    torch.testing.assert_close(first, second)


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("harm-was-done",))


def test_pickles_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"0.weight": _Harmful()}, tmp_path / "taef2_encoder.pth")
    with pytest.raises(EngineError, match=r"taef2_encoder\.pth"):
        autoencoder.load(str(tmp_path), "cpu")
    assert not (tmp_path / "harm-was-done").exists()


def test_mismatched_weights_error_names_them(taef2: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="neither"):
        autoencoder.load(str(tmp_path), "cpu")
    (tmp_path / "encoder.pth").write_bytes((taef2 / "taef2_decoder.pth").read_bytes())
    with pytest.raises(EngineError, match=r"encoder\.pth"):
        autoencoder.load(str(tmp_path), "cpu")


@pytest.mark.parametrize("fill", list(Fill))
def test_only_the_region_changes(taef2: Path, fill: Fill) -> None:
    """Far from the region the latents are unchanged, except for the pools."""
    engine = AutoencoderEngine(str(taef2), fill=fill, device="cpu")
    picture, donor = (np.asarray(photo(101, 77, seed)) for seed in (0, 1))
    inside = np.zeros((77, 101), bool)
    inside[:30, :30] = True

    def repaint(region: np.ndarray, seed: int = 0) -> np.ndarray:
        other = donor if fill is Fill.DONOR else None
        return engine.repaint(Task(picture, region, seed, "", other)).astype(int)

    changed = repaint(inside)
    assert changed.shape == picture.shape
    np.testing.assert_array_equal(changed, repaint(inside))
    assert (changed != repaint(inside, seed=1)).any() == (fill is Fill.NOISE)
    plain = repaint(np.zeros_like(inside))
    difference = np.abs(changed - plain).mean(axis=2)
    assert difference[inside].mean() > 3 * difference[50:, 60:].mean()


@pytest.mark.parametrize("fill", list(Fill))
def test_autoencoder_of_flux(tmp_path: Path, taef2: Path, fill: Fill) -> None:
    pictures = make_pictures(tmp_path)
    answer = command(
        *("inpaint", pictures, tmp_path / "out", "--engine", "autoencoder", "--model", taef2),
        *("--objects", make_maps(tmp_path), "--count", 6, "--fill", fill),
    )
    assert answer.exit_code == 0, answer.output
    check_pairs(tmp_path, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 12
    assert {row.generator for row in rows} == {"taef2"}
    assert {row.guidance for row in rows} == {fill.value}
    assert {row.source_id for row in rows} == {f"photo-{i}" for i in range(4)}
    assert len({row.mask_type for row in rows}) > 1


def test_retouching_takes_away_detail_in_three_ways() -> None:
    picture = np.asarray(photo(96), np.uint8)
    region = np.zeros(picture.shape[:2], bool)
    region[16:80, 16:80] = True

    def detail(pixels: np.ndarray) -> float:
        return float(np.abs(np.diff(pixels[region.nonzero()].astype(int), axis=0)).mean())

    assert {int(np.random.default_rng(seed).integers(3)) for seed in range(12)} == {0, 1, 2}
    results = {
        RetouchEngine().repaint(Task(picture, region, seed, "", None)).tobytes()
        for seed in range(12)
    }
    assert len(results) == 12
    for result in results:
        assert detail(np.frombuffer(result, np.uint8).reshape(picture.shape)) < detail(picture)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["AutoencoderTiny", "AutoencoderKL"])
def test_autoencoders_of_diffusers(tmp_path: Path, form: str) -> None:
    import diffusers

    torch.manual_seed(0)
    if form == "AutoencoderTiny":
        widths = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
        model = diffusers.AutoencoderTiny(**widths)
    else:
        model = diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=4,
        )
    model.save_pretrained(tmp_path / "tiny-vae")
    answer = command(
        *("inpaint", make_pictures(tmp_path), tmp_path / "out", "--engine", "autoencoder"),
        *("--model", tmp_path / "tiny-vae", "--mask", "random-polygon", "--count", 2),
    )
    assert answer.exit_code == 0, answer.output
    check_pairs(tmp_path, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {row.generator for row in rows} == {"tiny-vae"}
    assert {row.mask_type for row in rows} == {"random-polygon"}


@pytest.mark.slow
def test_pipeline_of_diffusers(tmp_path: Path, pipeline: Path) -> None:
    common = (
        *("inpaint", make_pictures(tmp_path), "--engine", "diffusers", "--model", pipeline),
        *("--objects", make_coco(tmp_path), "--count", 8, "--steps", 2),
        *("--mask", "segmentation", "--mask", "random-box", "--prompt", "a {category}"),
    )
    answer = command(*common, tmp_path / "out")
    assert answer.exit_code == 0, answer.output
    check_pairs(tmp_path, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {row.generator for row in rows} == {"tiny-diffusion"}
    told = {(row.mask_type, row.guidance) for row in rows}
    assert told == {("segmentation", "text"), ("random-box", "none")}
    assert command(*common, tmp_path / "again").exit_code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


@pytest.mark.parametrize(
    ("engine", "generator"), [("classical", "opencv-telea"), ("retouch", "opencv-retouch")]
)
def test_repairs_without_a_network_are_manipulated_but_not_ai(
    tmp_path: Path, engine: str, generator: str
) -> None:
    out = tmp_path / "out"
    pictures = make_pictures(tmp_path)
    answer = command("inpaint", pictures, out, "--engine", engine, "--count", 3)
    assert answer.exit_code == 0, answer.output
    rows = rows_of(out)
    assert {(row.kind, row.generator) for row in rows} == {(Kind.CLASSICAL_INPAINT, generator)}
    labels = LABELS[Kind.CLASSICAL_INPAINT]
    assert not labels.ai_generated
    assert (labels.ai, labels.manipulation) == (MaskLabel.NONE, MaskLabel.REGION)
    originals = {row.source_id: row for row in manifest.read(pictures)}
    for row in rows:
        white = region(out / str(row.mask))
        original = pixels(tmp_path / originals[row.source_id].path)
        repainted = pixels(out / row.path)
        np.testing.assert_array_equal(repainted[~white], original[~white])
        assert (repainted[white] != original[white]).any()


@pytest.mark.slow
def test_killed_run_continues_with_the_same_pixels(tmp_path: Path, taef2: Path) -> None:
    pictures = make_pictures(tmp_path)
    common = (
        *("inpaint", pictures, "--engine", "autoencoder", "--model", taef2, "--count", 12),
        *("--fill", "noise", "--seed", 4),
    )
    killed = tmp_path / "killed"
    arguments = [sys.executable, "-m", "training", "data", *map(str, (*common, killed))]
    process = subprocess.Popen(
        arguments,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(killed.glob("blended/*.png"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    finished = (killed / "journal.jsonl").read_bytes().count(b"\n") - 1
    assert finished < 12
    assert not (killed / "manifest.jsonl").exists()
    assert command(*common, killed).exit_code == 0
    assert command(*common, tmp_path / "whole").exit_code == 0
    before = contents(killed)
    partial = [name for name in before if ".partial" in name]
    for name in partial:  # a file that was being written when the run was killed
        del before[name]
    assert before == contents(tmp_path / "whole")


def test_dry_run_prints_a_plan_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ("inpaint", make_pictures(tmp_path), out, "--engine", "classical", "--count", 400)
    answer = command(*common, "--dry-run")
    assert answer.exit_code == 0
    assert "400, of which done: 0" in answer.stdout
    assert "disk space" in answer.stdout
    assert not out.exists()


def test_run_that_exceeds_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.data import inpaint

    usage = inpaint.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(inpaint.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    out = tmp_path / "out"
    answer = command("inpaint", make_pictures(tmp_path), out, "--engine", "classical")
    assert answer.exit_code == 1
    assert "not enough free disk space" in answer.stderr
    assert not out.exists()


def test_corrupt_picture_is_reported_and_left_out(tmp_path: Path) -> None:
    pictures, out = make_pictures(tmp_path), tmp_path / "out"
    corrupt, missing = (tmp_path / "real" / f"{i:012d}.jpg" for i in (2, 3))
    good = corrupt.read_bytes()
    corrupt.write_bytes(b"\xff\xd8\xff broken")
    missing.unlink()
    answer = command("inpaint", pictures, out, "--engine", "classical")
    assert answer.exit_code == 0
    told = answer.stderr.replace("\n", "")
    assert corrupt.name in told
    assert missing.name in told
    assert {row.source_id for row in rows_of(out)} == {"photo-0", "photo-1"}
    corrupt.write_bytes(good)
    assert command("inpaint", pictures, out, "--engine", "classical").exit_code == 0
    assert {row.source_id for row in rows_of(out)} == {"photo-0", "photo-1", "photo-2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "autoencoder"), "--model"),
        (("--engine", "classical", "--prompt", "a cat"), "--prompt"),
        (("--engine", "classical", "--mask", "box"), "annotations"),
        (("--engine", "autoencoder", "--model", "{empty}"), "neither config.json"),
        (("--engine", "diffusers", "--model", "{empty}"), "not a usable inpainting pipeline"),
    ],
)
def test_impossible_requests_are_errors(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    arguments = tuple(a.format(empty=tmp_path / "empty") for a in arguments)
    answer = command("inpaint", make_pictures(tmp_path), tmp_path / "out", *arguments)
    assert answer.exit_code != 0
    assert message in " ".join(answer.stderr.split())


@pytest.mark.parametrize("kind", [MaskType.RANDOM_BOX, MaskType.RANDOM_POLYGON])
def test_random_regions(kind: MaskType) -> None:
    rng = np.random.default_rng(0)
    drawn = [masks.draw(kind, (48, 75), [], rng) for _ in range(200)]
    shares = [region.mean() for region, _ in filter(None, drawn)]
    assert len(shares) == 200
    assert min(shares) >= 0.01
    assert max(shares) <= 0.6
    assert np.std(shares) > 0.03
    covered = np.mean([region for region, _ in filter(None, drawn)], axis=0)
    assert (covered > 0).mean() > 0.7


def test_existing_pairs_are_blended(tmp_path: Path, taef2: Path) -> None:
    pictures = make_pictures(tmp_path)
    made = tmp_path / "made"
    answer = command(
        *("inpaint", pictures, made, "--engine", "autoencoder", "--model", taef2, "--count", 4),
    )
    assert answer.exit_code == 0
    rows = rows_of(made)
    foreign = rows[0].model_copy(update={"source_id": "elsewhere"})
    manifest.write([*rows[::2], foreign], made / "inpainted.jsonl")
    answer = command(
        *("blend", made / "inpainted.jsonl", tmp_path / "blended", "--originals", pictures)
    )
    assert answer.exit_code == 0, answer.output
    assert "elsewhere" in answer.stderr
    blended = rows_of(tmp_path / "blended")
    assert [row.sha256 for row in blended] == [row.sha256 for row in rows[1::2]]
    assert {row.kind for row in blended} == {Kind.BLENDED}
    assert all((tmp_path / "blended" / str(row.mask)).is_file() for row in blended)


def test_aligned_pairs_pass_the_audit(tmp_path: Path, taef2: Path) -> None:
    pictures, made = make_pictures(tmp_path), tmp_path / "made"
    answer = command("inpaint", pictures, made, "--engine", "autoencoder", "--model", taef2)
    assert answer.exit_code == 0
    answer = command("audit", pictures, made / "manifest.jsonl")
    assert answer.exit_code == 1
    assert "FAILED: format" in answer.stdout
    aligned = [tmp_path / "real-96", tmp_path / "made-96"]
    for source, out in zip((pictures, made / "manifest.jsonl"), aligned, strict=True):
        assert command("align", source, out, "--everything").exit_code == 0
    answer = command("audit", *(out / "manifest.jsonl" for out in aligned))
    assert answer.exit_code == 0, answer.output


def test_blend() -> None:
    original, repainted = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 9, np.uint8)
    white = np.array([[True, False], [False, False]])
    assert blend(original, repainted, white)[:, :, 0].tolist() == [[9, 0], [0, 0]]


def test_damaged_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"seed": 1}\nnonsense\n')
    with pytest.raises(journal.RunMismatchError, match="damaged"):
        journal.done(tmp_path, {"seed": 1})
