from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.views import View, cut, merge

SIZE = 128
MIN_OVERLAP = 16


def masks_like(crops, picture_map):
    """Cut a map (H, W) in [0, 1] into the masks that a perfect network would give."""
    layout = crops.layout
    left, top, right, bottom = layout.box
    region = Image.fromarray(picture_map[top:bottom, left:right].astype(np.float32))
    if region.size != (layout.scaled_width, layout.scaled_height):
        region = region.resize((layout.scaled_width, layout.scaled_height))
    region = np.asarray(region)
    return np.stack(
        [
            region[row : row + SIZE, column : column + SIZE]
            for row in layout.rows
            for column in layout.columns
        ]
    )


def grey(height, width):
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (300, 210), (129, 128), (128, 700)])
def test_tiles_cover_the_picture_at_its_own_resolution(photo, height, width):
    picture = photo(height, width)
    tiles, layout = cut(picture, View.TILED, SIZE, 64)
    assert layout.scale == 1
    covered = np.zeros((height, width), bool)
    corners = [(row, column) for row in layout.rows for column in layout.columns]
    for tile, (row, column) in zip(tiles.numpy(), corners, strict=True):
        assert (tile == picture[row : row + SIZE, column : column + SIZE]).all()
        covered[row : row + SIZE, column : column + SIZE] = True
    assert covered.all()
    for positions, length in ((layout.rows, height), (layout.columns, width)):
        assert positions[0] == 0
        assert positions[-1] + SIZE == length
        steps = np.diff(positions)
        assert (steps <= SIZE - MIN_OVERLAP).all()
        assert np.ptp(steps) <= 1 if len(steps) else True


def test_a_picture_of_one_tile_merges_into_that_tile():
    mask = np.random.default_rng(0).random((1, SIZE, SIZE), np.float32)
    for view in View:
        layout = cut(grey(SIZE, SIZE), view, SIZE, 16).layout
        assert layout.tiles == 1
        assert (merge(layout, mask) == mask[0]).all()


@pytest.mark.parametrize(("height", "width"), [(128, 128), (200, 131), (500, 333), (140, 900)])
def test_weights_add_up_to_one_everywhere(height, width):
    layout = cut(grey(height, width), View.TILED, SIZE, 64).layout
    ones = np.ones((layout.tiles, SIZE, SIZE), np.float32)
    np.testing.assert_allclose(merge(layout, ones), 1, atol=1e-6)


def test_agreeing_tiles_merge_without_a_seam():
    y, x = np.mgrid[:420, :310]
    smooth = 0.5 + 0.4 * np.sin(x / 40) * np.cos(y / 50)
    crops = cut(grey(420, 310), View.TILED, SIZE, 64)
    np.testing.assert_allclose(merge(crops.layout, masks_like(crops, smooth)), smooth, atol=1e-5)


def test_disagreeing_tiles_are_blended_over_the_overlap():
    layout = cut(grey(SIZE, 2 * SIZE - MIN_OVERLAP), View.TILED, SIZE, 16).layout
    masks = np.stack([np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))]).astype(np.float32)
    row = merge(layout, masks)[SIZE // 2]
    assert row[: SIZE - MIN_OVERLAP].max() == 0
    assert row[SIZE:].min() == 1
    assert 0 < np.diff(row).max() < 2 / MIN_OVERLAP


@pytest.mark.parametrize("shift", [0, 1, 17])
def test_a_shifted_picture_shifts_its_map(shift):
    spot = np.zeros((300, 300))
    spot[100:140, 120 + shift : 160 + shift] = 1
    crops = cut(grey(300, 300), View.TILED, SIZE, 64)
    merged = merge(crops.layout, masks_like(crops, spot))
    np.testing.assert_allclose(merged, spot, atol=1e-6)


def test_center_is_the_central_crop(photo):
    picture = photo(301, 200)
    tiles, layout = cut(picture, View.CENTER, SIZE, 16)
    assert (tiles[0].numpy() == picture[86:214, 36:164]).all()
    merged = merge(layout, np.ones((1, SIZE, SIZE), np.float32))
    assert merged.shape == (301, 200)
    assert merged[86:214, 36:164].min() == 1
    assert merged.sum() == SIZE * SIZE


@pytest.mark.parametrize("view", View)
def test_a_small_picture_is_enlarged_until_its_shorter_side_fits(view):
    crops = cut(grey(64, 96), view, SIZE, 16)
    assert crops.layout.scale == 2
    merged = merge(crops.layout, np.ones((crops.layout.tiles, SIZE, SIZE), np.float32))
    assert merged.shape == (64, 96)
    assert (merged > 0.999).sum() == 64 * (64 if view is View.CENTER else 96)


def test_a_map_that_is_enlarged_in_bands_has_no_seams():
    picture = grey(1300, 700)
    layout = cut(picture, View.TILED, SIZE, 16).layout
    assert layout.scaled_height < 1300
    masks = np.random.default_rng(0).random((layout.tiles, SIZE, SIZE), np.float32)
    native = replace(
        layout,
        height=layout.scaled_height,
        width=layout.scaled_width,
        box=(0, 0, layout.scaled_width, layout.scaled_height),
    )
    whole = Image.fromarray(merge(native, masks)).resize((700, 1300), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(merge(layout, masks), np.asarray(whole), atol=1e-4)


@pytest.mark.parametrize("max_tiles", [1, 2, 5, 16])
@pytest.mark.parametrize(
    ("height", "width"), [(600, 800), (1000, 1000), (40, 2000), (1, 3000), (3000, 1), (1, 1)]
)
def test_never_more_tiles_than_allowed(height, width, max_tiles):
    crops = cut(grey(height, width), View.TILED, SIZE, max_tiles)
    layout = crops.layout
    assert 1 <= len(crops.tiles) == layout.tiles <= max_tiles
    assert crops.tiles.shape[1:] == (SIZE, SIZE, 3)
    merged = merge(layout, np.ones((layout.tiles, SIZE, SIZE), np.float32))
    assert merged.shape == (height, width)
    assert merged.min() > 0.999


def test_shrinking_is_no_more_than_needed():
    layout = cut(grey(900, 900), View.TILED, SIZE, 16).layout
    assert layout.tiles == 16
    assert layout.scaled_height == 4 * (SIZE - MIN_OVERLAP) + MIN_OVERLAP
    assert layout.scale == layout.scaled_height / 900


def test_strips_take_bounded_memory():
    for view in View:
        crops = cut(grey(1, 60_000), view, SIZE, 4)
        assert crops.layout.scaled_height * crops.layout.scaled_width <= 4 * SIZE * SIZE
