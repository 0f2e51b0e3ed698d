from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.tower import PATCH
from model.views import GLANCE_SIZES, blend, cut, enlarge, glance
from pictures.findings import View

SIZE = 128
MIN_OVERLAP = 16
CROPPED = [view for view in View if view is not View.GLANCE]


def merge(layout, masks):
    return enlarge(layout, blend(layout, masks))


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
    tiles, *_, layout = cut(picture, View.TILED, SIZE, 64)
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


def test_picture_of_one_tile_merges_into_that_tile():
    mask = np.random.default_rng(0).random((1, SIZE, SIZE), np.float32)
    for view in CROPPED:
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


def test_differing_tiles_are_blended_over_the_overlap():
    layout = cut(grey(SIZE, 2 * SIZE - MIN_OVERLAP), View.TILED, SIZE, 16).layout
    masks = np.stack([np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))]).astype(np.float32)
    row = merge(layout, masks)[SIZE // 2]
    assert row[: SIZE - MIN_OVERLAP].max() == 0
    assert row[SIZE:].min() == 1
    assert 0 < np.diff(row).max() < 2 / MIN_OVERLAP


@pytest.mark.parametrize("shift", [0, 1, 17])
def test_shifted_picture_shifts_its_map(shift):
    spot = np.zeros((300, 300))
    spot[100:140, 120 + shift : 160 + shift] = 1
    crops = cut(grey(300, 300), View.TILED, SIZE, 64)
    merged = merge(crops.layout, masks_like(crops, spot))
    np.testing.assert_allclose(merged, spot, atol=1e-6)


def test_center_is_the_central_crop(photo):
    picture = photo(301, 200)
    tiles, *_, layout = cut(picture, View.CENTER, SIZE, 16)
    assert (tiles[0].numpy() == picture[86:214, 36:164]).all()
    merged = merge(layout, np.ones((1, SIZE, SIZE), np.float32))
    assert merged.shape == (301, 200)
    assert merged[86:214, 36:164].min() == 1
    assert merged.sum() == SIZE * SIZE


@pytest.mark.parametrize("view", CROPPED)
def test_small_picture_is_enlarged_until_its_shorter_side_fits(view):
    crops = cut(grey(64, 96), view, SIZE, 16)
    assert crops.layout.scale == 2
    merged = merge(crops.layout, np.ones((crops.layout.tiles, SIZE, SIZE), np.float32))
    assert merged.shape == (64, 96)
    assert (merged > 0.999).sum() == 64 * (64 if view is View.CENTER else 96)


def test_map_is_enlarged_as_a_whole():
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


def test_rounded_map_is_enlarged_to_nearly_the_same():
    layout = cut(grey(1300, 700), View.TILED, SIZE, 16).layout
    masks = np.random.default_rng(0).random((layout.tiles, SIZE, SIZE), np.float32)
    exact = 255 * merge(layout, masks)
    rounded = enlarge(layout, np.rint(255 * blend(layout, masks)).astype(np.uint8))
    assert (rounded.shape, rounded.dtype) == ((1300, 700), np.uint8)
    assert np.abs(rounded - exact).max() <= 1.5  # before, along the rows, along the columns


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


def test_picture_is_shrunk_no_more_than_needed():
    layout = cut(grey(900, 900), View.TILED, SIZE, 16).layout
    assert layout.tiles == 16
    assert layout.scaled_height == 4 * (SIZE - MIN_OVERLAP) + MIN_OVERLAP
    assert layout.scale == layout.scaled_height / 900


def test_strips_take_bounded_memory():
    for view in CROPPED:
        crops = cut(grey(1, 60_000), view, SIZE, 4)
        assert crops.layout.scaled_height * crops.layout.scaled_width <= 4 * SIZE * SIZE


def test_glance_has_about_196_patches():
    for height, width in GLANCE_SIZES:
        assert height % PATCH == width % PATCH == 0
        assert 190 <= height * width // PATCH**2 <= 198


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (500, 500, (224, 224)),
        (900, 1000, (224, 224)),
        (3000, 4000, (192, 256)),
        (4000, 3000, (256, 192)),
        (1080, 1800, (176, 288)),
        (1000, 2000, (160, 304)),
        (7, 4, (288, 176)),
    ],
)
def test_glance_keeps_the_aspect_ratio(height, width, size):
    crops = cut(grey(height, width), View.GLANCE, SIZE, 16)
    assert crops.glances.shape == (1, *size, 3)
    assert crops.layout.glances == ((0, 0, width, height),)
    assert (crops.layout.tiles, len(crops.tiles), len(crops.boxes)) == (0, 0, 0)
    assert crops.layout.scale == pytest.approx(min(size[0] / height, size[1] / width), rel=1e-3)


def test_glance_is_the_shrunken_picture(photo):
    picture = photo(600, 800)
    expected = Image.fromarray(picture).resize((256, 192), Image.Resampling.BICUBIC)
    assert (glance(picture) == np.asarray(expected)).all()
    crops = cut(picture, View.TILED, SIZE, 16, glances=True)
    assert (crops.glances[0].numpy() == np.asarray(expected)).all()
    assert len(cut(picture, View.TILED, SIZE, 16).glances) == 0


@pytest.mark.parametrize(("height", "width"), [(300, 601), (100, 1000), (1000, 100), (1, 60_000)])
def test_glances_at_a_panorama_cover_all_of_it(height, width):
    crops = cut(grey(height, width), View.CENTER, SIZE, 4, glances=True)
    long, short = max(height, width), min(height, width)
    assert 2 <= len(crops.glances) <= 8
    assert sorted(crops.glances.shape[1:3]) == [160, 304]
    covered = np.zeros(long, bool)
    for left, top, right, bottom in crops.layout.glances:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (bottom - top if width == long else right - left) == short
        covered[(left if width == long else top) : (right if width == long else bottom)] = True
    assert covered.all()


def test_glance_at_a_crop_shows_that_crop(photo):
    picture = photo(100, 900)
    crops = cut(picture, View.TILED, SIZE, 16, glances=True)
    for pixels, (left, top, right, bottom) in zip(crops.glances, crops.layout.glances, strict=True):
        assert (pixels.numpy() == glance(picture[top:bottom, left:right])).all()


@pytest.mark.parametrize("view", CROPPED)
@pytest.mark.parametrize(("height", "width"), [(300, 400), (70, 50), (900, 900), (200, 1500)])
def test_boxes_are_the_positions_of_the_crops(photo, view, height, width):
    """A crop shows the same content as its box in the glance."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([255 * y / height, 255 * x / width, 0 * x], -1).astype(np.uint8)
    crops = cut(picture, view, SIZE, 9, glances=True)
    assert len(crops.boxes) == len(crops.looks) == len(crops.tiles)
    for tile, look, box in zip(crops.tiles, crops.looks, crops.boxes.tolist(), strict=True):
        left, top, right, bottom = crops.layout.glances[look]
        assert 0 <= box[0] < box[2] <= 1
        assert 0 <= box[1] < box[3] <= 1
        middle_x = left + (right - left) * (box[0] + box[2]) / 2
        middle_y = top + (bottom - top) * (box[1] + box[3]) / 2
        centre = tile[SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1].float()
        found = centre.mean((0, 1)) / 255
        cut_off = box[0] == 0 or box[2] == 1  # at the edge of a glance, which is not the picture's
        if len(crops.glances) == 1 or not cut_off:
            assert found[0].item() == pytest.approx(middle_y / height, abs=0.02)
            assert found[1].item() == pytest.approx(middle_x / width, abs=0.02)


def test_crops_of_a_panorama_use_the_nearest_glance():
    crops = cut(grey(SIZE, 10 * SIZE), View.TILED, SIZE, 64, glances=True)
    assert crops.looks.tolist() == sorted(crops.looks.tolist())
    assert set(crops.looks.tolist()) == set(range(len(crops.glances)))
