"""Pictures with masks in common formats: IMDL-BenCo JSON, `Tp/ Gt/` folders, MVSS-Net lists.

These formats do not state the kind of forgery: it is `splice` unless the user gives another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.data.importers.layout import (
    WHITE,
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
    by_stem,
    listed,
    pictures,
    read_text,
    slashed,
    subfolder,
)
from training.data.labels import Kind


def _imdl(root: Path, choices: Choices) -> Iterator[Item | Note]:
    """JSON files in the folder: lists of `[image, mask | "Negative"]`; white is tampered.

    Paths may be absolute or relative to the folder. `--table` names one of several files.
    """
    files = [choices.table] if choices.table else sorted(root.glob("*.json"))
    for file in files:
        try:
            rows: Any = json.loads(read_text(file))
        except ValueError as error:
            raise LayoutError(f"{file}: not a list of [image, mask] pairs: {error}") from error
        if not isinstance(rows, list):
            raise LayoutError(f"{file}: not a list of [image, mask] pairs")
        for number, row in enumerate(rows, start=1):
            match row:
                case [str(image), str(mask)] if image and mask:
                    yield _pair(root, image, None if mask == "Negative" else mask, choices)
                case _:
                    yield Note(Problem.NAME, f"{file}: row {number}: no [image, mask] pair")


def _mvss(root: Path, choices: Choices) -> Iterator[Item | Note]:
    """Lists with one line per picture: `image mask label`; the mask is `None` if the label is 0.

    White is tampered. Paths have no spaces and may be absolute or relative to the folder. `--table`
    names one of several files.
    """
    files = [choices.table] if choices.table else sorted(root.glob("*.txt"))
    for file in files:
        for line in filter(None, map(str.strip, read_text(file).split("\n"))):
            fields = line.split()
            if len(fields) != 3 or fields[2] not in ("0", "1"):
                yield Note(Problem.NAME, f"{file}: {line}")
                continue
            yield _pair(root, fields[0], fields[1] if fields[2] == "1" else None, choices)


def _pair(root: Path, image: str, mask: str | None, choices: Choices) -> Item:
    source = Path(slashed(image)).with_suffix("").as_posix()
    picture = listed(root, image)
    if mask is None:
        return Item(picture, Kind.AUTHENTIC, source)
    return _forged(picture, source, listed(root, mask), choices)


def _forged(picture: Path, source: str, mask: Path | None, choices: Choices) -> Item:
    guesses = () if choices.kind else ((Problem.KIND, f"{Kind.SPLICE}, without --kind"),)
    return Item(picture, choices.kind or Kind.SPLICE, source, mask=mask, guesses=guesses)


def _folders(root: Path, choices: Choices) -> Iterator[Item]:
    """`Tp/<name>` and `Gt/<name>.png` (or `<name>_gt.png`, `<name>_mask.png`), optionally `Au/`.

    White is tampered.
    """
    masks: dict[str, Path] = {}
    for stem, file in by_stem(subfolder(root, "Gt", "GT", "gt", "mask", "masks")).items():
        masks[stem.removesuffix("_gt").removesuffix("_mask")] = file
    for file in pictures(root / "Au"):
        yield Item(file, Kind.AUTHENTIC, file.stem)
    for file in pictures(subfolder(root, "Tp", "tp")):
        yield _forged(file, file.stem, masks.get(file.stem), choices)


IMDL_JSON = Layout('IMDL-BenCo JSON, image and mask or "Negative"; white = tampered', _imdl, WHITE)
MVSS_LIST = Layout("MVSS-Net lists: image mask label; white = tampered", _mvss, WHITE)
PAIRS = Layout("Tp/ Gt/ and optionally Au/; white = tampered", _folders, WHITE)
