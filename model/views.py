"""Cutting a picture into crops for the network, and merging their masks."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.tower import PATCH
from pictures.findings import View

_OVERLAPS_PER_CROP = 8  # neighbouring tiles share at least this part of a crop: 64 of 512 pixels
_TALL_GRIDS = ((16, 12), (18, 11), (19, 10))
_GRIDS = ((14, 14), *_TALL_GRIDS, *((columns, rows) for rows, columns in _TALL_GRIDS))
GLANCE_SIZES = tuple((rows * PATCH, columns * PATCH) for rows, columns in _GRIDS)
"""Heights and widths of glances."""
_ELONGATED = 2.0  # aspect ratio above which a picture gets several glances
_MAX_GLANCES = 8

_Number = TypeVar("_Number", np.uint8, np.float32)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in picture pixels."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of the tiles and glances of a picture.

    The box is the analysed part of the picture. It was resized to `scaled_height` x
    `scaled_width`, and tile (i, j) has its top left corner at (rows[i], columns[j]) of that.
    """

    view: View
    height: int
    """Height of the picture, pixels."""
    width: int
    """Width of the picture, pixels."""
    box: Box
    """The part that the tiles cover."""
    scaled_height: int
    scaled_width: int
    crop_size: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    glances: tuple[Box, ...] = ()
    """Part of the picture that each glance shows, along the long side."""
    mostly_text: bool = False
    """Whether the picture is mostly text; set by `Detector.cut`."""

    @property
    def tiles(self) -> int:
        """Number of tiles; they are ordered row by row."""
        return len(self.rows) * len(self.columns)

    @property
    def scale(self) -> float:
        """Scale factor of the axis that is shrunk more; 1: native resolution.

        That of the tiles, or of the glance if there are no tiles.
        """
        left, top, right, bottom = self.box
        return min(self.scaled_height / (bottom - top), self.scaled_width / (right - left))


class Crops(NamedTuple):
    """N tiles of one picture, K glances at it, and their positions."""

    tiles: torch.Tensor
    """RGB pixels (N, S, S, 3), uint8."""
    glances: torch.Tensor
    """RGB pixels (K, h, w, 3), uint8."""
    looks: torch.Tensor
    """Index of the glance with the nearest centre, for each tile (N,)."""
    boxes: torch.Tensor
    """Position of each tile in that glance: left, top, right, bottom, 0 to 1 (N, 4)."""
    layout: Layout


def cut(
    picture: NDArray[np.uint8], view: View, crop_size: int, max_tiles: int, *, glances: bool = False
) -> Crops:
    """Cut a picture into tiles.

    A picture with a side shorter than the crop is enlarged until that side fits. A picture that
    needs more than `max_tiles` is shrunk as little as possible; the long side is shrunk more than
    the short one only if the short side would otherwise be smaller than the crop.

    Args:
        picture: RGB pixels (H, W, 3).
        view: Part of the picture to cut.
        crop_size: S, side of a tile in pixels.
        max_tiles: Maximum number of tiles, at least 1.
        glances: Whether to make glances too, as networks with a prior need them; always done for
            the view `glance`.

    Returns:
        At least one tile; none for the view `glance`.
    """
    height, width = picture.shape[:2]
    layout = _lay_out(height, width, view, crop_size, max_tiles)
    if glances or view is View.GLANCE:
        layout = replace(layout, glances=_glance_boxes(height, width))
    looks, boxes = _place(layout)
    return Crops(_cut_tiles(picture, layout), _glance_all(picture, layout), looks, boxes, layout)


def glance(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a whole picture to a glance of about 196 patches with nearly the same aspect ratio.

    Args:
        picture: RGB pixels (H, W, 3), with an aspect ratio of at most about 2.

    Returns:
        Pixels (h, w, 3), both sides multiples of `PATCH`.
    """
    return _resize_picture(picture, *_glance_size(*picture.shape[:2]))


def _glance_size(height: int, width: int) -> tuple[int, int]:
    """Return the glance size with the aspect ratio nearest to height x width."""
    return min(GLANCE_SIZES, key=lambda size: abs(math.log(size[1] * height / (size[0] * width))))


def _glance_boxes(height: int, width: int) -> tuple[Box, ...]:
    """Spread glances evenly along the long side, so that they cover the picture."""
    short, long = sorted((height, width))
    if long <= _ELONGATED * short:
        return ((0, 0, width, height),)
    longest = _TALL_GRIDS[-1][0] / _TALL_GRIDS[-1][1]
    count = min(_MAX_GLANCES, math.ceil(long / (longest * short)))
    length = max(math.ceil(long / count), round(longest * short))
    starts = [round(i * (long - length) / (count - 1)) for i in range(count)]
    if width >= height:
        return tuple((start, 0, start + length, height) for start in starts)
    return tuple((0, start, width, start + length) for start in starts)


def _glance_all(picture: NDArray[np.uint8], layout: Layout) -> torch.Tensor:
    """Cut and shrink the glances (K, h, w, 3)."""
    if not layout.glances:
        return torch.empty(0, 0, 0, 3, dtype=torch.uint8)
    parts = [picture[top:bottom, left:right] for left, top, right, bottom in layout.glances]
    return torch.from_numpy(np.stack([glance(part) for part in parts]))


def _cut_tiles(picture: NDArray[np.uint8], layout: Layout) -> torch.Tensor:
    size = layout.crop_size
    if not layout.tiles:
        return torch.empty(0, size, size, 3, dtype=torch.uint8)
    left, top, right, bottom = layout.box
    region = picture[top:bottom, left:right]
    region = _resize_picture(region, layout.scaled_height, layout.scaled_width)
    tiles = [
        region[row : row + size, column : column + size]
        for row in layout.rows
        for column in layout.columns
    ]
    return torch.from_numpy(np.stack(tiles))


def _resize_picture(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _place(layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest glance of each tile and its position there; see `Crops`."""
    if not layout.glances or not layout.tiles:
        return torch.zeros(layout.tiles, dtype=torch.long), torch.zeros(layout.tiles, 4)
    left, top, right, bottom = layout.box
    step = np.array([(right - left) / layout.scaled_width, (bottom - top) / layout.scaled_height])
    corners = [(column, row) for row in layout.rows for column in layout.columns]
    starts = np.array([left, top]) + np.array(corners) * step  # (N, 2): x, y in picture pixels
    stops = starts + layout.crop_size * step
    glances = np.array(layout.glances, float).reshape(-1, 2, 2)  # (K, 2, 2)
    middles = (starts + stops) / 2
    distances = np.abs(middles[:, None] - glances.mean(1)).sum(2)  # (N, K)
    looks = distances.argmin(1)
    origins, sides = glances[looks, 0], glances[looks, 1] - glances[looks, 0]
    boxes = np.concatenate([(starts - origins) / sides, (stops - origins) / sides], 1)
    return torch.from_numpy(looks), torch.from_numpy(boxes.clip(0, 1).astype(np.float32))


def blend(layout: Layout, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blend the overlapping masks of the tiles.

    Args:
        layout: As `cut` returned it.
        probabilities: Masks of the tiles (N, S, S), values in [0, 1].

    Returns:
        Map (scaled_height, scaled_width) of the analysed part. For a single tile it is the tile's
        mask.
    """
    if layout.tiles == 1:
        single: NDArray[np.float32] = probabilities[0]
        return single
    size = layout.crop_size
    row_weights = _blending_weights(layout.rows, layout.scaled_height, size)
    column_weights = _blending_weights(layout.columns, layout.scaled_width, size)
    blended = np.zeros((layout.scaled_height, layout.scaled_width), np.float32)
    tiles = iter(probabilities)
    for row, vertical in zip(layout.rows, row_weights, strict=True):
        for column, horizontal in zip(layout.columns, column_weights, strict=True):
            window = blended[row : row + size, column : column + size]
            window += next(tiles) * vertical[:, None] * horizontal
    return blended


def enlarge(layout: Layout, values: NDArray[_Number]) -> NDArray[_Number]:
    """Resize a map of the analysed part to the picture.

    Args:
        layout: As `cut` returned it.
        values: Map of the size that `blend` returns; uint8 is several times as fast as float.

    Returns:
        Map (H, W), 0 outside of the analysed part.
    """
    left, top, right, bottom = layout.box
    height, width = bottom - top, right - left
    if values.shape != (height, width):
        image = Image.fromarray(values)
        values = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if (height, width) == (layout.height, layout.width):
        return values
    whole = np.zeros((layout.height, layout.width), values.dtype)
    whole[top:bottom, left:right] = values
    return whole


def _lay_out(height: int, width: int, view: View, crop_size: int, max_tiles: int) -> Layout:
    short = min(height, width)
    if view is View.GLANCE:
        (left, top, right, bottom), *_ = _glance_boxes(height, width)
        glance_height, glance_width = _glance_size(bottom - top, right - left)
        return Layout(
            view=view,
            height=height,
            width=width,
            box=(0, 0, width, height),
            scaled_height=max(1, height * glance_height // (bottom - top)),
            scaled_width=max(1, width * glance_width // (right - left)),
            crop_size=crop_size,
            rows=(),
            columns=(),
        )
    if view is View.CENTER:
        side = min(short, crop_size)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        scaled_height = scaled_width = crop_size
    else:
        box = (0, 0, width, height)
        scale = min(
            max(1.0, crop_size / short), _largest_scale(height, width, crop_size, max_tiles)
        )
        # Each side has at least the size of the crop, even if the scale asks for less.
        scaled_height = max(crop_size, int(height * scale))
        scaled_width = max(crop_size, int(width * scale))
    return Layout(
        view=view,
        height=height,
        width=width,
        box=box,
        scaled_height=scaled_height,
        scaled_width=scaled_width,
        crop_size=crop_size,
        rows=_positions(scaled_height, crop_size),
        columns=_positions(scaled_width, crop_size),
    )


def _largest_scale(height: int, width: int, crop_size: int, max_tiles: int) -> float:
    """Return the largest scale at which a picture needs at most `max_tiles` tiles."""
    overlap = crop_size // _OVERLAPS_PER_CROP

    def reach(tiles: int) -> int:  # longest side covered by `tiles` tiles
        return tiles * (crop_size - overlap) + overlap

    return max(
        min(reach(rows) / height, reach(max_tiles // rows) / width)
        for rows in range(1, max_tiles + 1)
    )


def _positions(length: int, crop_size: int) -> tuple[int, ...]:
    """Return tile offsets spread evenly over `length`; the last tile ends at its end."""
    overlap = crop_size // _OVERLAPS_PER_CROP
    count = math.ceil((length - overlap) / (crop_size - overlap))
    if count == 1:
        return (0,)
    return tuple(round(i * (length - crop_size) / (count - 1)) for i in range(count))


def _blending_weights(positions: tuple[int, ...], length: int, size: int) -> NDArray[np.float32]:
    """Return the weights (n, S) of the tiles along one axis; they sum to 1 at every pixel.

    They are triangular windows divided by their sum. Products of the two axes then also sum to 1,
    so no map of summed weights is needed.
    """
    tent = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    total = np.zeros(length)
    for position in positions:
        total[position : position + size] += tent
    return np.stack([tent / total[p : p + size] for p in positions]).astype(np.float32)
