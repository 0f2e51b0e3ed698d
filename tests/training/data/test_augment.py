"""Augmentation: sampling, effects, and equality of windows and whole pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.conftest import photo
from training.config import AugmentSettings
from training.data.augment import Augmentation, apply_history, apply_photometric, draw
from training.data.dataset import cut_augmented

NOTHING = Augmentation(None, None, None, "cv2", False)


def picture(width: int, height: int) -> np.ndarray:
    return np.asarray(photo(width, height))


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_sampled_augmentations_follow_the_settings(probability: float) -> None:
    settings = AugmentSettings(probability=probability, jitter=0.3)
    rng = np.random.default_rng(0)
    drawn = [draw(settings, rng) for _ in range(4000)]
    for name, share in (("sigma", probability), ("quality", probability), ("jitter", 0.3)):
        assert np.mean([getattr(a, name) is not None for a in drawn]) == pytest.approx(
            share, abs=0.03
        )
    assert np.mean([a.flip for a in drawn]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([a.encoder == "cv2" for a in drawn]) == pytest.approx(0.5, abs=0.03)
    sigmas = [a.sigma for a in drawn if a.sigma is not None]
    assert 0 < min(sigmas) < 0.1
    assert 2.9 < max(sigmas) <= 3
    assert {a.quality for a in drawn if a.quality is not None} == set(range(30, 101))


def test_no_augmentation_changes_nothing() -> None:
    pixels = picture(40, 30)
    np.testing.assert_array_equal(apply_photometric(pixels, NOTHING), pixels)


def test_jpeg_quality_and_encoder_are_applied() -> None:
    pixels = picture(48, 48)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=40)
    expected = np.asarray(Image.open(stream))
    ours = apply_photometric(pixels, Augmentation(None, None, 40, "pil", False))
    np.testing.assert_array_equal(ours, expected)
    other = apply_photometric(pixels, Augmentation(None, None, 40, "cv2", False))
    assert np.abs(other.astype(int) - expected).mean() < 3
    assert np.abs(other.astype(int) - pixels).mean() > 1


def test_blur_removes_detail() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    blurred = apply_photometric(pixels, Augmentation(None, 2.0, None, "cv2", False))
    assert blurred.std() < pixels.std() / 5


def test_colours_change_as_stated() -> None:
    pixels = np.full((4, 4, 3), (100, 50, 50), np.uint8)

    def jitter(*values: float) -> list[int]:
        changed = apply_photometric(pixels, Augmentation(values, None, None, "cv2", False))  # type: ignore[arg-type]
        return changed[0, 0].tolist()

    assert jitter(1, 1, 1, 0) == [100, 50, 50]
    assert jitter(1.2, 1, 1, 0) == [120, 60, 60]
    assert jitter(1, 1, 0, 0) == [65, 65, 65]
    assert jitter(1, 1, 1, 1 / 3) == [50, 100, 50]


@pytest.mark.parametrize("encoder", ["cv2", "pil"])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (-1, 7), (61, 83), (101, 133)])
def test_window_gives_what_the_whole_picture_gives(encoder: str, top: int, left: int) -> None:
    pixels = picture(230, 197)
    for sigma, quality in ((3.0, None), (None, 35), (2.5, 50)):
        augmentation = Augmentation(None, sigma, quality, encoder, False)
        whole = np.pad(apply_photometric(pixels, augmentation), ((1, 1), (1, 1), (0, 0)))
        expected = whole[top + 1 : top + 97, left + 1 : left + 97]
        np.testing.assert_array_equal(cut_augmented(pixels, top, left, 96, augmentation), expected)


def test_earlier_compression_lies_on_its_own_grid() -> None:
    pixels = picture(96, 80)
    region = np.zeros((80, 96), np.uint8)
    changed, mask = apply_history(
        pixels, region, Augmentation(None, None, None, "cv2", False, earlier=(30, 5, 11))
    )
    assert mask is region
    assert changed.shape == pixels.shape
    steps = np.abs(np.diff(changed.astype(int), axis=1)).mean(axis=(0, 2))  # (95,)
    assert int(steps.argmax() + 1 + 11) % 8 == 0


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_resize_applies_to_picture_and_mask(scale: float) -> None:
    region = np.zeros((80, 96), np.uint8)
    region[20:40, 48:] = 1
    pixels = np.repeat(region[..., None] * np.uint8(200), 3, axis=2)
    changed, mask = apply_history(
        pixels, region, Augmentation(None, None, None, "cv2", False, scale=scale)
    )
    assert changed.shape[:2] == mask.shape == (80 * scale, 96 * scale)
    assert ((changed[..., 0] > 100) == (mask == 1)).mean() > 0.98


def test_history_follows_the_settings() -> None:
    settings = AugmentSettings(earlier_jpeg=0.4, rescale=0.2, scale=(0.5, 2.0))
    rng = np.random.default_rng(0)
    drawn = [draw(settings, rng) for _ in range(4000)]
    assert np.mean([a.earlier is not None for a in drawn]) == pytest.approx(0.4, abs=0.03)
    scales = [a.scale for a in drawn if a.scale is not None]
    assert len(scales) / 4000 == pytest.approx(0.2, abs=0.03)
    assert 0.5 <= min(scales) < 0.51
    assert 1.96 < max(scales) <= 2
    assert np.mean(np.array(scales) < 1) == pytest.approx(0.5, abs=0.06)
