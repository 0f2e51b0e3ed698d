import numpy as np
import pytest

from model.regions import MAX_REGIONS, summarise
from pictures.findings import Region


def test_areas_boxes_and_scores():
    mask = np.zeros((100, 200), np.float32)
    mask[10:30, 20:60] = 0.8
    mask[50:90, 100:180] = 0.6
    summary = summarise(mask, 0.5)
    assert summary.area_fraction == pytest.approx((20 * 40 + 40 * 80) / 20_000)
    assert summary.max == pytest.approx(0.8)
    large, small = summary.regions
    assert large.box == (100, 50, 80, 40)
    assert large.area == pytest.approx(0.16)
    assert large.score == pytest.approx(0.6)
    assert small.box == (20, 10, 40, 20)
    assert small.score == pytest.approx(0.8)


def test_bytes_and_floats_agree():
    mask = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    as_bytes, as_floats = summarise(mask, 0.5), summarise(mask / 255.0, 0.5)
    assert as_bytes.area_fraction == as_floats.area_fraction
    assert as_bytes.max == pytest.approx(as_floats.max)
    assert [r.box for r in as_bytes.regions] == [r.box for r in as_floats.regions]


def test_small_regions_are_dropped_and_list_is_bounded():
    mask = np.zeros((400, 400), np.uint8)
    mask[::20, ::20] = 255  # single pixels
    assert summarise(mask, 0.5).regions == ()
    mask = np.zeros((400, 400), np.uint8)
    for index in range(25):
        row, column = divmod(index, 5)
        mask[row * 80 : row * 80 + 20 + index, column * 80 : column * 80 + 20] = 255
    regions = summarise(mask, 0.5).regions
    assert len(regions) == MAX_REGIONS
    assert [r.area for r in regions] == sorted((r.area for r in regions), reverse=True)


def test_nothing_marked_and_everything_marked():
    assert summarise(np.zeros((9, 9), np.uint8), 0.5) == (0.0, 0.0, ())
    everything = summarise(np.full((9, 7), 255, np.uint8), 1.0)
    assert everything == (1.0, 1.0, (Region((0, 0, 7, 9), 1.0, 1.0),))


def test_large_maps_are_downscaled_but_areas_stay_exact():
    mask = np.zeros((2500, 3001), np.uint8)
    mask[300:900, 600:1500] = 200
    mask[2400:, 2900:] = 255
    summary = summarise(mask, 0.5)
    assert summary.area_fraction == (600 * 900 + 100 * 101) / mask.size
    large, corner = summary.regions
    assert large.box == (600, 300, 900, 600)
    assert large.score == pytest.approx(200 / 255)
    x, y, width, height = corner.box
    assert (x + width, y + height) == (3001, 2500)
    assert corner.area == pytest.approx(100 * 101 / mask.size, rel=0.05)
