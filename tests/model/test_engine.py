import copy

import pytest
import torch
from torch.testing import assert_close

from model.engine import CropOutputs, DeviceError, InferenceEngine
from tests.model.textbook import Textbook, assert_agree


@pytest.fixture
def model(make_model):
    return make_model(crop_size=64).eval()


@pytest.fixture
def tiles(photo):
    return torch.from_numpy(photo(64, 64 * 5)).unflatten(1, (5, 64)).transpose(0, 1).contiguous()


def reference(model, tiles):
    """The textbook network, in its evaluation form, on normalised tiles."""
    mean, std = (torch.tensor(v) for v in (model.config.image_mean, model.config.image_std))
    with torch.inference_mode():
        return Textbook(model)(((tiles / 255 - mean) / std).permute(0, 3, 1, 2))


def test_float32_is_the_textbook_network(model, tiles):
    expected = reference(model, tiles)
    engine = InferenceEngine(copy.deepcopy(model), device="cpu", dtype="float32")
    outputs = engine.forward(tiles)
    for name in CropOutputs._fields:
        assert_agree(getattr(outputs, name), expected[name])
        assert getattr(outputs, name).dtype == torch.float32


def test_bfloat16_probabilities_stay_close(model, tiles):
    expected = reference(model, tiles)
    outputs = InferenceEngine(model, device="cpu", dtype="bfloat16").forward(tiles)
    assert_close(outputs.logits.sigmoid(), expected.logits.sigmoid(), atol=0.01, rtol=0)
    for name in ("ai", "manipulation"):
        difference = getattr(outputs, name).sigmoid() - expected[name].sigmoid()
        assert difference.abs().mean() < 0.01


def test_batches_do_not_change_the_outputs(model, tiles):
    engine = InferenceEngine(model, device="cpu", dtype="float32")
    engine.batch_limit = 2
    together = engine.forward(tiles)
    engine.batch_limit = 1
    for index in range(len(tiles)):
        alone = engine.forward(tiles[index : index + 1])
        for whole, part in zip(together, alone, strict=True):
            assert_agree(whole[index : index + 1], part)


def test_warm_up_computes_every_batch_size(model, monkeypatch):
    engine = InferenceEngine(model, device="cpu", dtype="float32", max_batch=3)
    sizes = []
    compute = engine._compute
    monkeypatch.setattr(engine, "_compute", lambda t: sizes.append(len(t)) or compute(t))
    engine.warm_up()
    assert sizes == [1], "a CPU computes crop by crop"
    sizes.clear()
    engine.forward(torch.zeros(3, 64, 64, 3, dtype=torch.uint8))
    assert sizes == [1, 1, 1], "so no later batch is of another size"
    sizes.clear()
    engine.batch_limit = 3
    engine.warm_up()
    assert sorted(sizes) == [1, 2, 3]


def fail_above(engine, monkeypatch, limit, error):
    compute = engine._compute

    def failing(tiles):
        if len(tiles) > limit:
            raise error
        return compute(tiles)

    monkeypatch.setattr(engine, "_compute", failing)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_batches_are_halved_when_memory_runs_out_and_stay_so(model, tiles, monkeypatch, error):
    engine = InferenceEngine(model, device="cpu", dtype="float32")
    expected = engine.forward(tiles)
    engine.batch_limit = 5
    fail_above(engine, monkeypatch, 1, error)
    outputs = engine.forward(tiles)
    assert engine.batch_limit == 1
    for ours, reference_output in zip(outputs, expected, strict=True):
        assert_agree(ours, reference_output)


def test_one_crop_that_does_not_fit_means_a_sick_device(model, tiles, monkeypatch):
    engine = InferenceEngine(model, device="cpu", dtype="float32")
    fail_above(engine, monkeypatch, 0, OUT_OF_MEMORY[0])
    with pytest.raises(DeviceError, match="one crop"):
        engine.forward(tiles)


def test_an_error_of_an_accelerator_means_a_sick_device(model, tiles, monkeypatch):
    engine = InferenceEngine(model, device="cpu", dtype="float32")
    fail_above(engine, monkeypatch, 0, RuntimeError("CUDA error: illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal") as on_cpu:
        engine.forward(tiles)
    assert not isinstance(on_cpu.value, DeviceError)
    engine.device = torch.device("cuda")
    with pytest.raises(DeviceError, match="illegal"):
        engine.forward(tiles)


DEVICES_NOT_HERE = ["nonsense", "cpu:x", "", "cuda:99", "meta", "xla"]


@pytest.mark.parametrize(
    "name", DEVICES_NOT_HERE if torch.cuda.is_available() else [*DEVICES_NOT_HERE, "cuda"]
)
def test_a_device_that_cannot_be_used_is_named(model, name):
    with pytest.raises(DeviceError, match=rf"^device '{name}' cannot be used: .") as refused:
        InferenceEngine(model, device=name)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_served_is_refused(make_model):
    with pytest.raises(ValueError, match="both segmentation heads"):
        InferenceEngine(make_model(heads="ai"), device="cpu")
    with pytest.raises(ValueError, match="dtype"):
        InferenceEngine(make_model(), device="cpu", dtype="float16")
