"""TampCOCO: copy-move and splicing forgeries of COCO pictures (Kwon et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.importers.layout import (
    NON_ZERO,
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
    coco_id,
    listed,
    read_text,
    slashed,
)
from training.data.labels import Kind
from training.data.manifest import Split

_NAME = re.compile(
    r"(?P<quality>\d{1,3})_(?P<target>\d+)\.jpg_(?P<source>\d+)\.jpg"
    r"(?:_RT(?P<rotation>-?\d+(?:\.\d+)?))?(?:_RS(?P<scale>\d+(?:\.\d+)?))?\.jpg"
)
_KINDS = {"cm": Kind.COPY_MOVE, "sp": Kind.SPLICE}
_SPLITS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Forgery:
    """Parameters of a forgery, from its file name."""

    quality: int
    """JPEG quality, 60 to 100."""
    target: int
    """COCO id of the altered picture."""
    source: int
    """COCO id of the object's picture; equals `target` for copy-move."""
    rotation: float
    """Rotation of the object, degrees."""
    scale: float
    """Scale factor of the object."""


def parse(name: str) -> Forgery | None:
    """Parse `{Q}_{target}.jpg_{source}.jpg[_RT{degrees}][_RS{scale}].jpg`; None if invalid."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return Forgery(
        quality=int(found["quality"]),
        target=int(found["target"]),
        source=int(found["source"]),
        rotation=float(found["rotation"] or 0),
        scale=float(found["scale"] or 1),
    )


def _tampcoco(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`{cm,sp}_{images,masks}` and `{cm,sp}_COCO_{train,valid,test}_list.txt` (`image,mask`).

    Non-zero mask pixels are tampered. The lists contain duplicates and missing files; both are
    reported. The source id of a splice is that of its target, which has most of the pixels; using
    the object's picture too would connect nearly all of COCO to one source.
    """
    found = False
    for prefix, kind in _KINDS.items():
        for part, split in _SPLITS.items():
            file = root / f"{prefix}_COCO_{part}_list.txt"
            if not file.is_file():
                continue
            found = True
            for line in filter(None, map(str.strip, read_text(file).split("\n"))):
                picture, comma, mask = (field.strip() for field in line.partition(","))
                forgery = parse(Path(slashed(picture)).name)
                if not comma or forgery is None:
                    yield Note(Problem.NAME, f"{file}: {line}")
                    continue
                source = coco_id(forgery.target)
                yield Item(
                    listed(root, picture), kind, source, mask=listed(root, mask), split=split
                )
    if not found:
        raise LayoutError(f"{root}: no {{cm,sp}}_COCO_{{train,valid,test}}_list.txt")


TAMPCOCO = Layout(
    "TampCOCO: cm_images cm_masks sp_images sp_masks and lists; non-zero = tampered",
    _tampcoco,
    mask=NON_ZERO,
    published={"copy_move": 200_000, "splice": 200_000},
)
