"""The network on a CUDA device: its numbers, its memory, its failures, its speed."""

import copy
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import GammaConfig
from model.detector import Detector
from model.engine import CropOutputs, CropPosition, DeviceError, InferenceEngine
from model.network import GammaModel
from tests.conftest import photo
from tests.model.agreement import assert_agree

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device here"
)

ROOT = Path(__file__).parents[2]
SIDE = 256
CROPS = 5


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    """Convolutions in float32 proper: by default cuDNN may round their factors to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GammaModel(GammaConfig(crop_size=SIDE)).eval()


@pytest.fixture(scope="module")
def tiles():
    pictures = [np.asarray(photo(SIDE, SIDE, seed)) for seed in range(CROPS)]
    return torch.from_numpy(np.stack(pictures))  # (5, S, S, 3)


@pytest.fixture(scope="module")
def expected(model, tiles):
    return make_engine(model, device="cpu").forward(tiles)


def make_engine(model, *, device="cuda", dtype="float32", max_batch=8):
    return InferenceEngine(copy.deepcopy(model), device=device, dtype=dtype, max_batch=max_batch)


@pytest.mark.parametrize("max_batch", range(1, CROPS + 1))
def test_float32_is_that_of_the_cpu_for_every_batch_size(model, tiles, expected, max_batch):
    outputs = make_engine(model, max_batch=max_batch).forward(tiles)
    for name in CropOutputs._fields:
        ours = getattr(outputs, name)
        assert (ours.device.type, ours.dtype) == ("cpu", torch.float32)
        assert_agree(ours, getattr(expected, name), 1e-4)


@pytest.mark.parametrize("count", range(1, CROPS + 1))
def test_bfloat16_probabilities_stay_close(model, tiles, expected, count):
    outputs = make_engine(model, dtype="bfloat16").forward(tiles[:count])
    for name in CropOutputs._fields:
        difference = getattr(outputs, name).sigmoid() - getattr(expected, name)[:count].sigmoid()
        assert difference.abs().max() < (0.01 if name == "logits" else 0.05)
        assert difference.abs().mean() < 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_glances_are_those_of_the_cpu(tiles, dtype):
    """With the tower that ships, at pictures of three shapes, and crops of them in one batch."""
    torch.manual_seed(0)
    fields = {"backbone": "mit_b0", "crop_size": SIDE, "prior": "clip_vit_b16"}
    glancing = GammaModel(GammaConfig(**fields)).eval()
    shapes = [(224, 224), (192, 256), (304, 160), (224, 224), (224, 224)]
    pixels = [np.asarray(photo(w, h, s)) for s, (h, w) in enumerate(shapes)]
    glances = [torch.from_numpy(some.copy())[None] for some in pixels]
    box = torch.tensor([0.25, 0.0, 0.75, 0.5])
    found = []
    for device, precision in (("cpu", "float32"), ("cuda", dtype)):
        engine = make_engine(glancing, device=device, dtype=precision)
        sights = engine.look(glances)
        outputs = engine.forward(tiles, [CropPosition(sight, 0, box) for sight in sights])
        found.append((torch.tensor([sight.logit for sight in sights]), *outputs))
    for ours, reference in zip(found[1], found[0], strict=True):
        if dtype == "float32":
            assert_agree(ours, reference, 1e-3)
        else:
            assert (ours.sigmoid() - reference.sigmoid()).abs().max() < 0.05


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_that_ships_knows_its_canary(dtype):
    limits = {"max_pixels": 1_000_000, "max_tiles": 4}
    Detector.from_pretrained(None, device="cuda", dtype=dtype, **limits).check()


def test_auto_is_this_device_in_bfloat16_if_it_computes_in_it(model):
    engine = make_engine(model, device="auto", dtype="auto")
    assert engine.device.type == "cuda"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert engine.dtype is (torch.bfloat16 if native else torch.float32)


def test_a_device_that_does_not_exist_is_named(model):
    with pytest.raises(DeviceError, match=r"^device 'cuda:99' cannot be used: ."):
        make_engine(model, device="cuda:99")


def test_warm_up_computes_every_batch_size(model, monkeypatch):
    engine = make_engine(model, max_batch=3)
    sizes = []
    compute = engine._compute
    monkeypatch.setattr(engine, "_compute", lambda t, p: sizes.append(len(t)) or compute(t, p))
    engine.warm_up()
    assert sorted(sizes) == [1, 2, 3]


@pytest.fixture
def limit_memory():
    """Make torch refuse to hold more bytes than given; a function of the number of bytes."""
    total = torch.cuda.get_device_properties(0).total_memory

    def limit(size):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / total))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_batches_are_halved_when_memory_runs_out(model, tiles, limit_memory):
    many = tiles.repeat(7, 1, 1, 1)[:32]  # (32, S, S, 3)
    engine = make_engine(model, max_batch=32)
    expected = engine.forward(many)
    torch.cuda.empty_cache()
    idle = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    engine.forward(many)
    limit_memory(idle + (torch.cuda.max_memory_reserved() - idle) // 3)
    outputs = engine.forward(many)
    assert 1 <= engine.batch_limit < 32
    for name in CropOutputs._fields:
        assert_agree(getattr(outputs, name), getattr(expected, name), 1e-4)
    remembered = engine.batch_limit
    engine.forward(many)
    assert engine.batch_limit == remembered


def test_one_crop_that_does_not_fit_means_a_sick_device(model, tiles, limit_memory):
    engine = make_engine(model)
    torch.cuda.empty_cache()
    limit_memory(torch.cuda.memory_reserved())
    with pytest.raises(DeviceError, match="one crop does not fit") as failed:
        engine.forward(tiles)
    assert isinstance(failed.value.__cause__, torch.cuda.OutOfMemoryError)


def run_python(code, *, timeout=110):
    return subprocess.run(
        [sys.executable, *code], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


def test_a_device_that_fails_at_work_raises_device_errors_from_then_on():
    """In a process of its own: after a failed assertion the device is lost to the process."""
    code = """
        import torch
        from model.config import GammaConfig
        from model.engine import DeviceError, InferenceEngine
        from model.network import GammaModel

        model = GammaModel(GammaConfig(backbone="mit_b0", crop_size=64))
        engine = InferenceEngine(model, device="cuda")
        tiles = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
        engine.forward(tiles)
        torch.zeros(2, device="cuda")[torch.tensor([7], device="cuda")]  # out of bounds
        for _ in range(2):
            try:
                engine.forward(tiles)
            except DeviceError as error:
                print("DeviceError:", str(error).splitlines()[0], flush=True)
    """
    result = run_python(["-c", textwrap.dedent(code)])
    found = re.findall(r"^DeviceError: cuda failed: .*CUDA error", result.stdout, re.MULTILINE)
    assert len(found) == 2, result.stdout + result.stderr


def test_the_benchmark_runs_here():
    arguments = ["--device", "cuda", "--backbones", "mit_b0", "--batches", "1", "4", "--turns", "1"]
    result = run_python(["-m", "benchmarks.model", *arguments])
    assert result.returncode == 0, result.stderr
    assert "crops/s" in result.stdout
