from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from model import checkpoint
from model.checkpoint import BUILT_IN, WEIGHTS_FILE, CheckpointError
from model.detector import Detector, Verdict, pool
from model.engine import CropOutputs
from model.views import View
from pictures.errors import TooManyPixelsError

LIMITS = {"max_pixels": 1_000_000, "max_tiles": 4}


def png(picture):
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def assert_same(first, second):
    """Up to rounding, which differs from run to run with the place of the tensors in memory."""
    assert first.ai_probability == pytest.approx(second.ai_probability, abs=1e-5)
    for name in ("ai_mask", "manipulation_mask"):
        difference = getattr(first, name).astype(int) - getattr(second, name)
        assert np.abs(difference).max() <= 1


@pytest.fixture
def make_detector(make_model):
    def make(**fields):
        model = make_model(**({"crop_size": 64} | fields))
        return Detector(model, device="cpu", dtype="float32", **LIMITS)

    return make


def test_the_built_in_network_is_trained_calibrated_and_measured(photo):
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
def test_smaller_crops_are_more(make_model, crop_size, most):
    """`max_tiles` is of 512-pixel crops: a network of 256-pixel ones may cut four for each."""
    detector = Detector(
        make_model(crop_size=crop_size), device="cpu", max_pixels=10**7, max_tiles=4
    )
    crops = detector.cut(np.zeros((2000, 2000, 3), np.uint8), View.TILED)
    assert len(crops.tiles) == most
    assert crops.layout.scale < 1


@pytest.mark.parametrize("view", View)
def test_masks_have_the_size_of_the_picture(make_detector, photo, view):
    detection = make_detector().detect(png(photo(150, 97)), view)
    assert detection.ai_mask.shape == detection.manipulation_mask.shape == (150, 97)
    assert detection.ai_mask.dtype == np.uint8
    assert 0 <= detection.ai_probability <= 1
    assert detection.layout.view is view


def test_detect_is_its_four_stages(make_detector, photo):
    detector = make_detector()
    data = png(photo(100, 130))
    crops = detector.cut(detector.decode(data), View.TILED)
    staged = detector.conclude(crops.layout, detector.forward(crops.tiles))
    at_once = detector.detect(data, View.TILED)
    assert_same(staged, at_once)


def test_pictures_share_batches_without_mixing(make_detector, photo):
    detector = make_detector()
    crops = [detector.cut(photo(*size), View.TILED) for size in ((64, 64), (100, 120))]
    together = detector.forward(torch.cat([c.tiles for c in crops]))
    start = 0
    for tiles, layout in crops:
        part = CropOutputs(*(t[start : start + len(tiles)] for t in together))
        start += len(tiles)
        alone = detector.conclude(layout, detector.forward(tiles))
        assert detector.conclude(layout, part).ai_probability == pytest.approx(
            alone.ai_probability, abs=1e-5
        )


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
    found = detector.conclude(layout, outputs_of([-1.0, 3.0])).ai_probability
    assert found == pytest.approx(torch.tensor(float(expected)).sigmoid().item())


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 1.0), ("max", 9.0), ("top3", 5.0)])
def test_every_pooling_of_many_tiles(pooling, expected):
    assert pool(torch.tensor([-12.0, 4.0, 9.0, 2.0, 2.0]), pooling) == expected
    assert pool(torch.tensor([7.0]), pooling) == 7


def test_thresholds_give_verdicts(make_detector):
    thresholds = {"uncertain": 0.4, "ai_generated": 0.7, "mask": 0.5, "manipulated_area": 0.2}
    detector = make_detector(thresholds=thresholds)
    layout = detector.cut(np.zeros((64, 64, 3), np.uint8), View.CENTER).layout
    verdicts = [detector.conclude(layout, outputs_of([x])).verdict for x in (-2.0, 0.0, 2.0)]
    assert verdicts == [Verdict.AUTHENTIC, Verdict.UNCERTAIN, Verdict.AI_GENERATED]
    flags = [
        detector.conclude(layout, outputs_of([0.0], manipulated_columns=n)).manipulated
        for n in (0, 2, 8)
    ]
    assert flags == [False, False, True]


def test_mask_bytes_are_rounded_probabilities(make_detector):
    detector = make_detector()
    layout = detector.cut(np.zeros((64, 64, 3), np.uint8), View.CENTER).layout
    detection = detector.conclude(layout, outputs_of([0.0], mask_logit=1.0))
    assert (detection.ai_mask == round(255 * torch.tensor(1.0).sigmoid().item())).all()
    assert detection.ai.area_fraction == 1


def test_limits_are_those_given(make_detector):
    with pytest.raises(TooManyPixelsError):
        make_detector().decode(png(np.zeros((1001, 1000, 3), np.uint8)))


def test_a_checkpoint_is_served_as_it_says(make_model, photo, tmp_path):
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


def test_a_checkpoint_without_both_heads_is_not_served(make_model, tmp_path):
    checkpoint.save(make_model(heads="ai"), tmp_path)
    with pytest.raises(CheckpointError, match="both segmentation heads"):
        Detector.from_pretrained(str(tmp_path), **LIMITS)
