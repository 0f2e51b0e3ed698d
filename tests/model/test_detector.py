from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from model import checkpoint
from model.checkpoint import BUILT_IN, WEIGHTS_FILE, CheckpointError
from model.detector import Detector, GlanceError, Part
from model.engine import CropOutputs, GlanceFeatures
from pictures.errors import TooManyPixelsError
from pictures.findings import Note, Verdict, View
from tests.writing import page_of_text

LIMITS = {"max_pixels": 1_000_000, "max_tiles": 4}
CROPPED = [view for view in View if view is not View.GLANCE]
PRIOR = {"prior": "clip_vit_b16"}


def png(picture):
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def assert_same(first, second):
    """Equal up to rounding, which depends on memory alignment."""
    assert first.ai_probability == pytest.approx(second.ai_probability, abs=1e-5)
    for mask, other in zip(first.masks, second.masks, strict=True):
        assert np.abs(mask.values.astype(int) - other.values).max() <= 1


@pytest.fixture
def make_detector(make_model):
    def make(**fields):
        model = make_model(**({"crop_size": 64} | fields))
        return Detector(model, device="cpu", dtype="float32", **LIMITS)

    return make


def test_built_in_network_is_trained_calibrated_and_evaluated(photo):
    first, second = (
        Detector.from_pretrained(None, device="cpu", dtype="float32", **LIMITS) for _ in range(2)
    )
    info = first.info
    assert (info.backbone, info.trained, info.checkpoint) == ("mit_b0", True, None)
    assert (info.device, info.dtype) == ("cpu", "float32")
    assert 0 < info.thresholds.uncertain < info.thresholds.ai_generated < 1
    assert info.thresholds.manipulated_area < 1
    assert info.results
    assert (BUILT_IN / WEIGHTS_FILE).stat().st_size <= 12_000_000
    picture = png(photo(280, 300))
    assert_same(*(d.detect(picture, View.CENTER) for d in (first, second)))


@pytest.mark.parametrize(("crop_size", "most"), [(512, 4), (256, 16)])
def test_smaller_crops_allow_more_tiles(make_model, crop_size, most):
    """`max_tiles` is of 512-pixel crops: a network of 256-pixel ones may cut four for each."""
    detector = Detector(
        make_model(crop_size=crop_size), device="cpu", max_pixels=10**7, max_tiles=4
    )
    crops = detector.cut(np.zeros((2000, 2000, 3), np.uint8), View.TILED)
    assert len(crops.tiles) == most
    assert crops.layout.scale < 1


@pytest.mark.parametrize("view", CROPPED)
def test_masks_have_the_size_of_the_picture(make_detector, photo, view):
    detection = make_detector().detect(png(photo(150, 97)), view)
    for mask in detection.masks:
        assert (mask.values.shape, mask.values.dtype) == ((150, 97), np.uint8)
    assert 0 <= detection.ai_probability <= 1
    assert detection.layout.view is view


def test_detect_equals_its_four_stages(make_detector, photo):
    detector = make_detector()
    data = png(photo(100, 130))
    crops = detector.cut(detector.decode(data), View.TILED)
    (sight,) = detector.look([crops])
    (outputs,) = detector.forward([Part(crops, sight)])
    staged = detector.conclude(crops.layout, outputs, sight)
    at_once = detector.detect(data, View.TILED)
    assert_same(staged, at_once)


def test_pictures_share_batches_without_mixing(make_detector, photo):
    detector = make_detector()
    crops = [detector.cut(photo(*size), View.TILED) for size in ((64, 64), (100, 120))]
    together = detector.forward([Part(one, None) for one in crops])
    for one, outputs in zip(crops, together, strict=True):
        (alone,) = detector.forward([Part(one, None)])
        found, expected = (detector.conclude(one.layout, o, None) for o in (outputs, alone))
        assert found.ai_probability == pytest.approx(expected.ai_probability, abs=1e-5)


def outputs_of(logits, mask_logit=-9.0, manipulated_columns=0):
    masks = torch.full((len(logits), 16, 16), mask_logit)
    manipulation = masks.clone()
    manipulation[:, :, :manipulated_columns] = 9.0
    return CropOutputs(torch.tensor(logits), masks, manipulation)


@pytest.mark.parametrize(
    ("pooling", "temperature", "expected"),
    [("mean", 1.0, 1.0), ("mean", 2.0, 0.5), ("max", 1.0, 3.0), ("top3", 1.0, 1.0)],
)
def test_tiles_are_pooled_and_calibrated(make_detector, pooling, temperature, expected):
    detector = make_detector(pooling=pooling, temperature=temperature)
    layout = detector.cut(np.zeros((64, 66, 3), np.uint8), View.TILED).layout
    found = detector.conclude(layout, outputs_of([-1.0, 3.0]), None).ai_probability
    assert found == pytest.approx(torch.tensor(float(expected)).sigmoid().item())


def test_thresholds_give_verdicts(make_detector):
    thresholds = {"uncertain": 0.4, "ai_generated": 0.7, "mask": 0.5, "manipulated_area": 0.2}
    detector = make_detector(thresholds=thresholds)
    layout = detector.cut(np.zeros((64, 64, 3), np.uint8), View.CENTER).layout
    verdicts = [detector.conclude(layout, outputs_of([x]), None).verdict for x in (-2.0, 0.0, 2.0)]
    assert verdicts == [Verdict.AUTHENTIC, Verdict.UNCERTAIN, Verdict.AI_GENERATED]
    flags = [
        detector.conclude(layout, outputs_of([0.0], manipulated_columns=n), None).manipulated
        for n in (0, 2, 8)
    ]
    assert flags == [False, False, True]


def test_marks_that_contradict_the_score_are_noted(make_detector):
    thresholds = {"uncertain": 0.4, "ai_generated": 0.7, "mask": 0.5, "manipulated_area": 0.2}
    detector = make_detector(thresholds=thresholds)
    layout = detector.cut(np.zeros((64, 64, 3), np.uint8), View.CENTER).layout

    def notes(logit, mask_logit):
        return detector.conclude(layout, outputs_of([logit], mask_logit=mask_logit), None).notes

    assert notes(-9.0, 9.0) == (Note.MARKS_CONTRADICT_SCORE,)
    assert notes(-9.0, -9.0) == notes(9.0, 9.0) == notes(9.0, -9.0) == ()


@pytest.mark.parametrize("view", CROPPED)
def test_pages_of_text_are_noted(make_detector, view):
    page = png(np.asarray(page_of_text(400, 600, 14)))
    assert Note.MOSTLY_TEXT in make_detector().detect(page, view).notes


def test_mask_bytes_are_rounded_probabilities(make_detector):
    detector = make_detector()
    layout = detector.cut(np.zeros((64, 64, 3), np.uint8), View.CENTER).layout
    detection = detector.conclude(layout, outputs_of([0.0], mask_logit=1.0), None)
    values, summary = detection.masks.ai
    assert (values == round(255 * torch.tensor(1.0).sigmoid().item())).all()
    assert summary.area_fraction == 1


def test_limits_are_applied(make_detector):
    with pytest.raises(TooManyPixelsError):
        make_detector().decode(png(np.zeros((1001, 1000, 3), np.uint8)))


def test_serving_rules_of_a_checkpoint_are_applied(make_model, photo, tmp_path):
    fields = {"crop_size": 64, "version": "3", "trained": True, "thresholds": {"mask": 0.25}}
    model = make_model(**fields)
    checkpoint.save(model, tmp_path)
    detector = Detector.from_pretrained(str(tmp_path), device="cpu", dtype="float32", **LIMITS)
    assert (detector.info.version, detector.info.trained) == ("3", True)
    assert detector.info.thresholds.mask == 0.25
    assert detector.info.checkpoint == str(tmp_path)
    expected = Detector(model, device="cpu", dtype="float32", **LIMITS)
    data = png(photo(64, 64))
    assert_same(detector.detect(data, View.CENTER), expected.detect(data, View.CENTER))


def test_checkpoint_without_both_heads_is_not_served(make_model, tmp_path):
    checkpoint.save(make_model(heads="ai"), tmp_path)
    with pytest.raises(CheckpointError, match="both segmentation heads"):
        Detector.from_pretrained(str(tmp_path), **LIMITS)


def test_auto_respects_its_tile_budget(make_model):
    def tiles(view, **limits):
        model = make_model(crop_size=512)
        detector = Detector(model, device="cpu", max_pixels=10**7, max_tiles=16, **limits)
        return len(detector.cut(np.zeros((2000, 2000, 3), np.uint8), view).tiles)

    assert tiles(View.TILED, tile_budget=4) == 16
    assert tiles(View.AUTO, tile_budget=4) == 4
    assert tiles(View.AUTO, tile_budget=100) == 16, "never more than `max_tiles`"
    assert tiles(View.AUTO) < 16, "a CPU has a small one"


@pytest.mark.parametrize("size", [(150, 97), (60, 400)])
def test_glance_has_its_own_temperature_and_thresholds(make_detector, small_tower, photo, size):
    thresholds = {"uncertain": 0.0, "ai_generated": 0.0}
    fields = {"glance_temperature": 4.0, "glance_thresholds": thresholds, "temperature": 0.1}
    detector = make_detector(**PRIOR | fields)
    picture = photo(*size)
    crops = detector.cut(picture, View.GLANCE)
    (sight,) = detector.look([crops])
    found = detector.detect(png(picture), View.GLANCE)
    assert found.ai_probability == pytest.approx(torch.tensor(sight.logit / 4).sigmoid().item())
    assert found.verdict is Verdict.AI_GENERATED
    assert found.thresholds == detector.info.glance_thresholds != detector.info.thresholds
    assert (found.masks, found.manipulated) == (None, None)
    assert found.layout.tiles == 0


def test_glance_affects_the_score_of_a_crop(make_detector, small_tower):
    """Two pictures with the same centre differ only in the glance."""
    detector = make_detector(**PRIOR)
    dark, light = (np.full((300, 300, 3), level, np.uint8) for level in (20, 230))
    for picture in (dark, light):
        picture[100:200, 100:200] = 128
    found = [detector.detect(png(picture), View.CENTER) for picture in (dark, light)]
    assert abs(found[0].ai_probability - found[1].ai_probability) > 1e-4
    other = make_detector()
    same = [other.detect(png(picture), View.CENTER) for picture in (dark, light)]
    assert same[0].ai_probability == pytest.approx(same[1].ai_probability, abs=1e-6)


def test_pictures_of_any_shape_share_batches_with_glances(make_detector, small_tower, photo):
    detector = make_detector(**PRIOR)
    views = (View.TILED, View.GLANCE, View.CENTER, View.TILED)
    pictures = [photo(64, 64), photo(90, 150), photo(300, 90), photo(70, 200)]
    crops = [detector.cut(p, v) for p, v in zip(pictures, views, strict=True)]
    detector._engine.batch_limit = 3
    sights = detector.look(crops)
    parts = [Part(one, sight) for one, sight in zip(crops, sights, strict=True)]
    for one, sight, outputs, picture, view in zip(
        crops, sights, detector.forward(parts), pictures, views, strict=True
    ):
        found = detector.conclude(one.layout, outputs, sight)
        alone = detector.detect(png(picture), view)
        assert found.ai_probability == pytest.approx(alone.ai_probability, abs=1e-5)


def test_parts_of_the_crops_give_the_same_outputs(make_detector, small_tower, photo):
    detector = make_detector(**PRIOR)
    crops = detector.cut(photo(100, 200), View.TILED)
    (sight,) = detector.look([crops])
    (whole,) = detector.forward([Part(crops, sight)])
    first, rest = detector.forward([Part(crops, sight, 0, 1), Part(crops, sight, 1)])
    joined = torch.cat([first.logits, rest.logits])
    assert len(joined) > 2
    torch.testing.assert_close(joined, whole.logits, atol=1e-5, rtol=0)


def test_network_without_prior_refuses_glance(make_detector, photo):
    with pytest.raises(GlanceError, match="has no prior"):
        make_detector().detect(png(photo(64, 64)), View.GLANCE)


def test_checkpoint_whose_tower_is_missing_is_not_served(make_model, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    checkpoint.save(make_model(tower=nowhere, **PRIOR), tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"tower: .*nowhere"):
        Detector.from_pretrained(str(tmp_path / "model"), device="cpu", **LIMITS)


def test_offsets_shift_the_masks_of_their_heads(make_detector, photo):
    plain, shifted = (
        make_detector(mask_offsets=offsets) for offsets in ({}, {"ai": 1e4, "manipulation": -1e4})
    )
    before, after = (d.detect(png(photo(64, 64)), View.CENTER).masks for d in (plain, shifted))
    assert 0 < before.ai.values.mean() < 255
    assert (after.ai.values == 255).all()
    assert (after.manipulation.values == 0).all()


def test_offsets_of_unknown_heads_are_refused(make_model):
    with pytest.raises(ValueError, match="mask_offsets: there is no head sky"):
        make_model(mask_offsets={"sky": 1.0})


def sight_of(logit):
    return GlanceFeatures(logit, torch.empty(0), torch.empty(0))


def test_glance_and_parts_combine_as_calibrated(make_detector):
    detector = make_detector(part_offset=-4.0, temperature=2.0)
    layout = detector.cut(np.zeros((64, 66, 3), np.uint8), View.TILED).layout
    found = detector.conclude(layout, outputs_of([1.0, 5.0]), sight_of(1.0)).ai_probability
    odds = np.exp(1) + np.exp(2 - 4) + np.exp(1 + 2 - 4)
    assert found == pytest.approx(1 / (1 + odds**-0.5), abs=1e-5)


@pytest.mark.parametrize(("glance", "marked"), [(4.0, 1.0), (2.0, 0.0)])
def test_sure_glance_marks_the_whole_picture_as_ai(make_detector, glance, marked):
    detector = make_detector(whole_offset=-3.0)
    layout = detector.cut(np.zeros((64, 64, 3), np.uint8), View.CENTER).layout
    masks = detector.conclude(layout, outputs_of([glance]), sight_of(glance)).masks
    assert masks.ai.summary.area_fraction == marked
    assert masks.manipulation.summary.area_fraction == 0


def test_part_shifts_the_ai_mask_of_its_tile(make_detector):
    detector = make_detector(part_gain=0.5)
    layout = detector.cut(np.zeros((64, 128, 3), np.uint8), View.TILED).layout
    outputs = outputs_of([-9.0] * (layout.tiles - 1) + [11.0], mask_logit=-3.0)
    mask = detector.conclude(layout, outputs, sight_of(1.0)).masks.ai.values
    assert (mask[:, -32:] > 127).all()
    assert (mask[:, :32] < 127).all()
