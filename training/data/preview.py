"""Contact sheet of pictures, their training masks and labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.data import manifest
from training.data.labels import LABELS, Kind, MaskLabel
from training.data.manifest import Row
from training.data.pixels import read_picture, read_region

_SIDE = 192  # size of a picture on the sheet, pixels
_GAP = 8
_LINE = 14
_UNKNOWN = (128, 128, 128)
_BACKGROUND = (32, 32, 32)


def choose(file: Path, count: int, seed: int) -> list[Row]:
    """Sample rows of a manifest, evenly over the kinds as far as possible."""
    rng = np.random.default_rng(seed)
    by_kind: dict[Kind, list[Row]] = defaultdict(list)
    for row in manifest.read(file):
        by_kind[row.kind].append(row)
    shuffled = [[rows[i] for i in rng.permutation(len(rows))] for rows in by_kind.values()]
    chosen: list[Row] = []
    while len(chosen) < count and any(shuffled):
        chosen += [rows.pop() for rows in shuffled if rows]
    return sorted(chosen[:count], key=lambda row: list(Kind).index(row.kind))


def draw_sheet(rows: Sequence[Row], root: Path, columns: int) -> Image.Image:
    """Draw the sheet: picture, AI mask and manipulation mask of each row.

    Masks are white where the label is 1 and grey without label.

    Args:
        rows: At least one.
        root: The manifest's folder.
        columns: Rows of the manifest per line of the sheet.

    Raises:
        PictureUnreadableError: A picture or a mask cannot be decoded.
        OSError: A file cannot be opened.
    """
    width, height = 3 * _SIDE + 3 * _GAP, _SIDE + 3 * _LINE + _GAP
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, lines * height + _GAP), _BACKGROUND)
    for number, row in enumerate(rows):
        line, column = divmod(number, columns)
        cell = _draw_cell(row, root, (width, height))
        sheet.paste(cell, (_GAP + column * width, _GAP + line * height))
    return sheet


def _draw_cell(row: Row, root: Path, size: tuple[int, int]) -> Image.Image:
    labels = LABELS[row.kind]
    picture = Image.fromarray(read_picture(root / row.path))
    tiles = [picture]
    tiles += [_mask(label, row, root) for label in (labels.ai, labels.manipulation)]
    cell = Image.new("RGB", size, _BACKGROUND)
    for number, tile in enumerate(tiles):
        tile = tile.resize(picture.size, Image.Resampling.NEAREST)
        tile.thumbnail((_SIDE, _SIDE))
        cell.paste(tile, (number * (_SIDE + _GAP), 3 * _LINE))
    details = (row.generator, row.mask_type, row.guidance, row.split)
    quality = "" if row.jpeg_quality is None else f" quality {row.jpeg_quality}"
    text = [
        f"{row.kind}: class {int(labels.ai_generated)}; AI mask: {labels.ai}; "
        f"manipulation mask: {labels.manipulation}",
        f"{row.width} x {row.height} {row.format}{quality}  {' / '.join(filter(None, details))}",
        row.path[-90:],
    ]
    pen = ImageDraw.Draw(cell)
    for number, words in enumerate(text):
        pen.text((0, number * _LINE), words, font=ImageFont.load_default(11))
    return cell


def _mask(label: MaskLabel, row: Row, root: Path) -> Image.Image:
    if label is MaskLabel.REGION and row.mask is not None:
        return Image.fromarray(read_region(root / row.mask)).convert("RGB")
    colours = {MaskLabel.NONE: (0, 0, 0), MaskLabel.ALL: (255, 255, 255)}
    return Image.new("RGB", (row.width, row.height), colours.get(label, _UNKNOWN))
