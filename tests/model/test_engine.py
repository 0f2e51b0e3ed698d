import copy

import pytest
import torch
from torch.testing import assert_close

from model.engine import CropOutputs, CropPosition, DeviceError, InferenceEngine, to_levels
from model.reference import ReferenceModel
from model.views import GLANCE_SIZES
from tests.model.agreement import assert_agree


@pytest.fixture
def model(make_model):
    return make_model(crop_size=64).eval()


@pytest.fixture
def tiles(photo):
    return torch.from_numpy(photo(64, 64 * 5)).unflatten(1, (5, 64)).transpose(0, 1).contiguous()


def reference(model, tiles):
    """The reference network in evaluation mode."""
    with torch.inference_mode():
        return ReferenceModel(model)(to_levels(tiles))


def test_float32_equals_the_reference(model, tiles):
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
    monkeypatch.setattr(engine, "_compute", lambda t, p: sizes.append(len(t)) or compute(t, p))
    engine.warm_up()
    assert sizes == [1], "a CPU computes crop by crop"
    sizes.clear()
    engine.forward(torch.zeros(3, 64, 64, 3, dtype=torch.uint8))
    assert sizes == [1, 1, 1], "so no later batch is of another size"
    sizes.clear()
    engine.batch_limit = 3
    engine.warm_up()
    assert sorted(sizes) == [1, 2, 3]


WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])


@pytest.fixture
def glancing(make_model, small_tower):
    return make_model(crop_size=64, prior="clip_vit_b16", input="cooccurrence", input_channels=4)


@pytest.fixture
def glances(photo):
    """Of three pictures: a square, a wide one, and a panorama of two glances."""
    pixels = [
        photo(224, 224)[None],
        photo(192, 256)[None],
        photo(160, 304 * 2).reshape(2, 160, 304, 3),
    ]
    return [torch.from_numpy(some) for some in pixels]


def test_glance_equals_reference(glancing, tiles, glances):
    """Vector, and patches at the positions of crops, for pictures of any shape."""
    torch.nn.init.normal_(glancing.input.table)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0]])
    levels = [to_levels(some)[:1] for some in glances[:2]]
    with torch.inference_mode():
        expected = [
            ReferenceModel(glancing.eval())(
                to_levels(tile[None]), levels_of_glance=level, boxes=box[None]
            )
            for tile, level, box in zip(tiles, levels, boxes, strict=False)
        ]
    engine = InferenceEngine(glancing, device="cpu", dtype="float32")
    engine.batch_limit = 2
    sights = engine.look(glances[:2])
    places = [CropPosition(sight, 0, box) for sight, box in zip(sights, boxes, strict=True)]
    outputs = engine.forward(tiles[:2], places)
    for name in CropOutputs._fields:
        assert_agree(getattr(outputs, name), torch.cat([one[name] for one in expected]), 1e-4)


def test_glances_in_bfloat16_stay_close(glancing, tiles, glances):
    torch.nn.init.normal_(glancing.input.table)
    outputs = []
    for dtype in ("float32", "bfloat16"):
        engine = InferenceEngine(copy.deepcopy(glancing), device="cpu", dtype=dtype)
        sights = engine.look(glances[:2])
        boxes = WHOLE, torch.tensor([0.1, 0.2, 0.8, 0.9])
        places = [CropPosition(sight, 0, box) for sight, box in zip(sights, boxes, strict=True)]
        outputs.append(engine.forward(tiles[:2], places))
    for expected, found in zip(*outputs, strict=True):
        assert (found.sigmoid() - expected.sigmoid()).abs().mean() < 0.02


def test_glances_of_one_shape_are_computed_together(glancing, glances, monkeypatch):
    engine = InferenceEngine(glancing, device="cpu", dtype="float32")
    engine.batch_limit = 8
    shapes = []
    look = engine._look
    monkeypatch.setattr(engine, "_look", lambda g: shapes.append(tuple(g.shape[:3])) or look(g))
    sights = engine.look([*glances, 255 - glances[0], *glances])
    assert sorted(shapes) == [(2, 192, 256), (3, 224, 224), (4, 160, 304)]
    assert [len(sight.patches) for sight in sights] == [1, 1, 2, 1, 1, 1, 2]
    for first, again in zip(sights[:3], sights[4:], strict=True):
        assert first.logit == pytest.approx(again.logit, abs=1e-5)
        assert_agree(first.patches, again.patches)
    assert sights[3].logit != pytest.approx(sights[0].logit, abs=1e-5)


def test_panorama_is_the_mean_of_its_glances(glancing, glances):
    engine = InferenceEngine(glancing, device="cpu", dtype="float32")
    whole, first, second = engine.look([glances[2], glances[2][:1], glances[2][1:]])
    assert whole.logit == pytest.approx((first.logit + second.logit) / 2, abs=1e-5)
    assert_agree(whole.vector, (first.vector + second.vector) / 2)
    assert_agree(whole.patches, torch.cat([first.patches, second.patches]))


def test_glance_logit_depends_only_on_its_vector(glancing, glances):
    engine = InferenceEngine(glancing, device="cpu", dtype="float32")
    (sight,) = engine.look(glances[:1])
    assert sight.logit == pytest.approx(engine._model.classifier(sight.vector).item(), abs=1e-5)


def test_crops_use_the_patches_at_their_position(glancing, tiles, glances):
    engine = InferenceEngine(glancing, device="cpu", dtype="float32")
    (sight,) = engine.look(glances[2:])
    left = torch.tensor([0.0, 0.0, 0.3, 1.0])
    places = [
        CropPosition(sight, 0, WHOLE),
        CropPosition(sight, 0, left),
        CropPosition(sight, 1, WHOLE),
    ]
    logits = engine.forward(tiles[:1].expand(3, -1, -1, -1), places).logits
    assert logits.unique().numel() == 3


def test_warm_up_computes_every_glance_shape(glancing, monkeypatch):
    engine = InferenceEngine(glancing, device="cpu", dtype="float32")
    engine.batch_limit = 2
    shapes = set()
    look = engine._look
    monkeypatch.setattr(engine, "_look", lambda g: shapes.add(tuple(g.shape[:3])) or look(g))
    engine.warm_up()
    assert shapes == {(count, *size) for count in (1, 2) for size in GLANCE_SIZES}


def test_glances_are_halved_when_memory_runs_out(glancing, glances, monkeypatch):
    engine = InferenceEngine(glancing, device="cpu", dtype="float32")
    expected = engine.look(glances[:1] * 5)
    engine.batch_limit = 5
    look = engine._look

    def failing(levels):
        if len(levels) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return look(levels)

    monkeypatch.setattr(engine, "_look", failing)
    found = engine.look(glances[:1] * 5)
    assert engine.batch_limit == 2
    for ours, reference_sight in zip(found, expected, strict=True):
        assert ours.logit == pytest.approx(reference_sight.logit, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tower_uses_engine_precision_and_is_loaded_at_start(glancing, small_tower, glances, dtype):
    engine = InferenceEngine(glancing, device="cpu", dtype=dtype)
    assert small_tower == [""]
    (sight,) = engine.look(glances[:1])
    tower = engine._model.glance.load_tower(engine.device, engine.dtype)
    assert next(tower.parameters()).dtype == engine.dtype
    assert sight.patches.dtype == engine.dtype
    assert small_tower == [""]


def fail_above(engine, monkeypatch, limit, error):
    compute = engine._compute

    def failing(tiles, places):
        if len(tiles) > limit:
            raise error
        return compute(tiles, places)

    monkeypatch.setattr(engine, "_compute", failing)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_batches_are_halved_permanently_when_memory_runs_out(model, tiles, monkeypatch, error):
    engine = InferenceEngine(model, device="cpu", dtype="float32")
    expected = engine.forward(tiles)
    engine.batch_limit = 5
    fail_above(engine, monkeypatch, 1, error)
    outputs = engine.forward(tiles)
    assert engine.batch_limit == 1
    for ours, reference_output in zip(outputs, expected, strict=True):
        assert_agree(ours, reference_output)


def test_out_of_memory_for_one_crop_is_a_device_error(model, tiles, monkeypatch):
    engine = InferenceEngine(model, device="cpu", dtype="float32")
    fail_above(engine, monkeypatch, 0, OUT_OF_MEMORY[0])
    with pytest.raises(DeviceError, match="one crop"):
        engine.forward(tiles)


def test_error_of_an_accelerator_is_a_device_error(model, tiles, monkeypatch):
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
def test_device_that_cannot_be_used_is_named(model, name):
    with pytest.raises(DeviceError, match=rf"^device '{name}' cannot be used: .") as refused:
        InferenceEngine(model, device=name)
    assert "\n" not in str(refused.value)


def test_invalid_models_and_settings_are_refused(make_model):
    with pytest.raises(ValueError, match="both segmentation heads"):
        InferenceEngine(make_model(heads="ai"), device="cpu")
    with pytest.raises(ValueError, match="dtype"):
        InferenceEngine(make_model(), device="cpu", dtype="float16")
