"""Benchmarks of manipulation localisation: CASIA v1+, Columbia, Coverage, NIST16, IMD2020, DSO-1.

Their forgeries are copy-move, splices and retouches without neural networks, so all have the labels
of `copy_move` and `splice`; if a data set does not state which, the kind is `splice`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from training.data.importers.layout import (
    BLACK,
    MASKED,
    WHITE,
    Choices,
    Item,
    Layout,
    LayoutError,
    MaskRule,
    Note,
    Problem,
    by_stem,
    cells,
    listed,
    pictures,
    read_table,
    slashed,
    subfolder,
)
from training.data.labels import Kind

_CASIA_NAME = re.compile(
    r"(?:Tp|Sp|CM)_(?P<origin>[DS])_.*?_(?P<source>[a-z]{3}\d+)_(?P<target>[a-z]{3}\d+)_\d+"
)
_CASIA_AUTHENTIC = re.compile(r"Au_([a-z]{3})_(\d+)")


def _casia(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`Au/`, `Tp/{CM,Sp}/<name>.jpg`, `CASIA 1.0 groundtruth/{CM,Sp}/<name>_gt.png`.

    Masks may also be in `Gt/` or `groundtruth/`, in subfolders, and have the names of the pictures.
    Picture names contain the source of the object and the target; the target is the source id.
    `S` in a name (same picture) or the folder `CM` is copy-move. White is tampered.
    One picture of `Sp` has no published mask and is reported as missing.
    """
    folder = subfolder(root, "CASIA 1.0 groundtruth", "Gt", "groundtruth")
    masks = {file.stem.removesuffix("_gt"): file for file in pictures(folder, deep=True)}
    for file in pictures(root / "Au", deep=True):
        named = _CASIA_AUTHENTIC.fullmatch(file.stem)
        source = f"casia/{named[1]}{named[2]}" if named else f"casia/{file.stem}"
        guesses = () if named else ((Problem.SOURCE, source),)
        yield Item(file, Kind.AUTHENTIC, source, split="test", guesses=guesses)
    for file in pictures(subfolder(root, "Tp"), deep=True):
        named = _CASIA_NAME.fullmatch(file.stem)
        if named is None:
            yield Note(Problem.NAME, str(file), file)
            continue
        copied = named["origin"] == "S" or file.parent.name == "CM"
        yield Item(
            file,
            Kind.COPY_MOVE if copied else Kind.SPLICE,
            f"casia/{named['target']}",
            mask=masks.get(file.stem),
            split="test",
        )


def _columbia(root: Path, _: Choices) -> Iterator[Item]:
    """`4cam_auth/*.tif`, `4cam_splc/*.tif`, `4cam_splc/edgemask/<name>_edgemask.jpg`.

    Masks are colour drawings with a green spliced part; edge pixels are brighter. Some copies of
    the set name them `<name>_edgemask_3.jpg`.
    """
    for file in pictures(root / "4cam_auth"):
        yield Item(file, Kind.AUTHENTIC, f"columbia/{file.stem}", split="test")
    spliced = subfolder(root, "4cam_splc")
    masks = {
        re.sub(r"_edgemask(_3)?$", "", name): file
        for name, file in by_stem(spliced / "edgemask").items()
    }
    for file in pictures(spliced):
        mask = masks.get(file.stem)
        yield Item(file, Kind.SPLICE, f"columbia/{file.stem}", mask=mask, split="test")


def _coverage(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`image/<n>.tif` (original), `image/<n>t.tif` (copy-move), `mask/<n>forged.tif`.

    White is the pasted object. Nine masks differ in size from their pictures.
    """
    masks = by_stem(subfolder(root, "mask", "masks"))
    for file in pictures(subfolder(root, "image", "images")):
        named = re.fullmatch(r"(\d+)(t?)", file.stem)
        if named is None:
            yield Note(Problem.NAME, str(file), file)
            continue
        source = f"coverage/{named[1]}"
        if named[2]:
            mask = masks.get(f"{named[1]}forged")
            yield Item(file, Kind.COPY_MOVE, source, mask=mask, split="test")
        else:
            yield Item(file, Kind.AUTHENTIC, source, split="test")


def _nist16(root: Path, _: Choices) -> Iterator[Item | Note]:
    """NC2016: `reference/manipulation/NC2016-manipulation-ref.csv`, fields separated by `|`.

    `ProbeFileName` and `ProbeMaskFileName` are paths below the root, `BaseFileName` the original.
    `IsTarget` is `Y` for manipulated pictures. **Black** is tampered. Removals use pixels of the
    same picture, so their kind is copy-move.
    """
    file = root / "reference" / "manipulation" / "NC2016-manipulation-ref.csv"
    if not file.is_file():
        raise LayoutError(f"{root}: no {file.relative_to(root)}")
    table = read_table(file, "|")
    if "ProbeFileName" not in (table.fieldnames or ()):
        raise LayoutError(f"{file}: no column ProbeFileName")
    for record in table:
        probe = cells(record, "ProbeFileName")
        if probe is None:
            yield Note(Problem.NAME, f"{file}: line {table.line_num}: no ProbeFileName")
            continue
        picture = listed(root, probe[0])
        base = cells(record, "BaseFileName")
        source = f"nist16/{Path(slashed((base or probe)[0])).stem}"
        guesses = [] if base else [(Problem.SOURCE, source)]
        mask = cells(record, "ProbeMaskFileName")
        target = cells(record, "IsTarget")
        if target and target != ["Y"]:
            yield Item(picture, Kind.AUTHENTIC, source, split="test")
            continue
        kind = Kind.SPLICE if cells(record, "IsManipulationTypeSplice") == ["Y"] else Kind.COPY_MOVE
        if target is None:
            guesses.append((Problem.KIND, f"{kind}, without IsTarget"))
        yield Item(
            picture,
            kind,
            source,
            mask=listed(root, mask[0]) if mask else None,
            split="test",
            guesses=tuple(guesses),
        )


def _imd2020(root: Path, _: Choices) -> Iterator[Item]:
    """Per original `<id>/<id>_orig.jpg`, `<id>/<name>.{jpg,png}` and `<id>/<name>_mask.png`.

    White is tampered.
    """
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir())
    for folder in folders:
        source = f"imd2020/{folder.name}"
        files = pictures(folder)
        masks = {file.stem: file for file in files if file.stem.endswith("_mask")}
        for file in files:
            if file.stem.endswith("_orig"):
                yield Item(file, Kind.AUTHENTIC, source, split="test")
            elif file.stem not in masks:
                mask = masks.get(f"{file.stem}_mask")
                yield Item(file, Kind.SPLICE, source, mask=mask, split="test")


def _dso1(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`DSO-1/{normal,splicing}-<n>.png`, `DSO-1-Fake-Images-Masks/splicing-<n>.png`.

    **Black** is tampered in the published masks.
    """
    masks = by_stem(subfolder(root, "DSO-1-Fake-Images-Masks"))
    for file in pictures(subfolder(root, "DSO-1")):
        source = f"dso1/{file.stem}"
        if file.stem.startswith("normal-"):
            yield Item(file, Kind.AUTHENTIC, source, split="test")
        elif file.stem.startswith("splicing-"):
            yield Item(file, Kind.SPLICE, source, mask=masks.get(file.stem), split="test")
        else:
            yield Note(Problem.NAME, str(file), file)


CASIA = Layout(
    "CASIA v1+: Au/ Tp/{CM,Sp}/ and ground truth; white = tampered",
    _casia,
    mask=WHITE,
    published={"authentic": 800, "copy_move": 459, "splice": 461},
)
COLUMBIA = Layout(
    "Columbia uncompressed: 4cam_auth/ 4cam_splc/edgemask/; green = spliced",
    _columbia,
    mask=MaskRule(channel=1, threshold=120),
    published={"authentic": 183, "splice": 180},
)
COVERAGE = Layout(
    "Coverage: image/ mask/; white = pasted, masks resized to their pictures",
    _coverage,
    mask=MaskRule(threshold=WHITE.threshold, resized=True),
    published={"authentic": 100, "copy_move": 100},
)
NIST16 = Layout(
    "NIST16 (NC2016): reference table; black = tampered",
    _nist16,
    mask=BLACK,
    published={MASKED: 564},
)
IMD2020 = Layout(
    "IMD2020: one folder per original; white = tampered",
    _imd2020,
    mask=WHITE,
    published={"authentic": 414, "splice": 2_010},
)
DSO1 = Layout(
    "DSO-1: DSO-1/ DSO-1-Fake-Images-Masks/; black = tampered",
    _dso1,
    mask=BLACK,
    published={"authentic": 100, "splice": 100},
)
