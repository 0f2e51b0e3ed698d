"""COCO, and data sets made from it: B-Free, CocoGlide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from training.data.importers.layout import (
    WHITE,
    Choices,
    Item,
    Layout,
    LayoutError,
    Note,
    Problem,
    by_stem,
    cells,
    coco_id,
    listed,
    read_table,
    read_text,
    slashed,
    subfolder,
)
from training.data.labels import Kind
from training.data.manifest import Split

_BFREE_GENERATOR = "stable-diffusion-2.1"
# Folders of B-Free: kind, mask folder, mask type, guidance.
_BFREE = {
    "SD2.1_selfconditioned": (Kind.SYNTHETIC, None, None, "self-conditioned"),
    "SD2.1_selfconditioned_origBG": (Kind.BLENDED, "mask", "segmentation", "self-conditioned"),
    "SD2.1_inpainted_samecat": (Kind.INPAINT, "mask", "segmentation", "same category"),
    "SD2.1_inpainted_samecat_origBG": (Kind.BLENDED, "mask", "segmentation", "same category"),
    "SD2.1_inpainted_diffcat": (Kind.INPAINT, "bbox", "box", "different category"),
    "SD2.1_inpainted_diffcat_origBG": (Kind.BLENDED, "bbox", "box", "different category"),
}
_GLIDE_NAME = re.compile(r"glide_inpainting_\w+?_(\d+)_up")


def _coco(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`annotations/instances_<set>.json` and `<set>/<image>.jpg`; images with instances only.

    In train2017 these are 117,266 of 118,287. No split and no masks.
    """
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        raise LayoutError(f"{root}: no annotations/instances_<set>.json")
    for file in files:
        folder = root / file.stem.removeprefix("instances_")
        if not folder.is_dir():  # the annotations of all sets come in one archive
            yield Note(Problem.UNUSED, f"{file}: no folder {folder.name}")
            continue
        try:
            content = json.loads(read_text(file))
            annotated = {annotation["image_id"] for annotation in content["annotations"]}
            names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        except (ValueError, KeyError, TypeError) as error:
            raise LayoutError(f"{file}: not annotations of COCO: {error!r}") from error
        for number in sorted(annotated & names.keys()):
            yield Item(listed(folder, names[number]), Kind.AUTHENTIC, coco_id(number))


def _bfree(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`COCO_real_512`, six folders of SD 2.1 versions, `mask`, `bbox`, `{train,valid}_list.csv`.

    A picture has the same name, its COCO id, in every folder; the lists' column `id` (else the
    first) names them. White is the inpainted object or box. A self-conditioned picture is
    wholly generated from the original, so it is `synthetic`; `_origBG` ones have the original
    background restored. A folder that was not downloaded is left out.
    """
    folders = {name: by_stem(root / name) for name in ("COCO_real_512", *_BFREE)}
    if not any(folders.values()):
        raise LayoutError(f"{root}: none of the folders {', '.join(folders)}")
    masks = {name: by_stem(root / name) for name in ("mask", "bbox")}
    lists: tuple[tuple[str, Split], ...] = (("train", "train"), ("valid", "validation"))
    for part, split in lists:
        file = root / f"{part}_list.csv"
        if not file.is_file():
            yield Note(Problem.MISSING, str(file))
            continue
        for name in _ids(file):
            if not re.search(r"\d+$", name):
                yield Note(Problem.NAME, f"{file}: {name}")
                continue
            source = coco_id(re.findall(r"\d+", name)[-1])
            for folder, files in folders.items():
                if not files:
                    continue
                picture = files.get(name, root / folder / f"{name}.png")
                if folder == "COCO_real_512":
                    yield Item(picture, Kind.AUTHENTIC, source, split=split)
                    continue
                kind, mask_folder, mask_type, guidance = _BFREE[folder]
                yield Item(
                    picture,
                    kind,
                    source,
                    mask=masks[mask_folder].get(name) if mask_folder else None,
                    generator=_BFREE_GENERATOR,
                    mask_type=mask_type,
                    guidance=guidance,
                    split=split,
                    group=folder,
                )


def _ids(file: Path) -> Iterator[str]:
    """Yield the picture names of a B-Free list, without suffix."""
    table = read_table(file)
    columns = table.fieldnames or [""]
    column = "id" if "id" in columns else columns[0]
    for record in table:
        yield Path(slashed(record[column] or "")).stem


def _cocoglide(root: Path, _: Choices) -> Iterator[Item | Note]:
    """`real/ fake/ mask/` and `table.csv` (`real,fake,mask,prompt`), which pairs different names.

    White is inpainted. GLIDE's result was pasted into the original (both are equal outside the
    mask), so the fakes are `blended`.
    """
    file = root / "table.csv"
    if not file.is_file():
        raise LayoutError(f"{root}: no table.csv")
    subfolder(root, "fake")
    folders = ("real", "fake", "mask")
    table = read_table(file)
    for record in table:
        names = cells(record, *folders)
        named = _GLIDE_NAME.fullmatch(Path(slashed(names[1])).stem) if names else None
        if names is None or named is None:
            yield Note(Problem.NAME, f"{file}: line {table.line_num}: {record.get('fake')}")
            continue
        real, fake, mask = (
            root / folder / Path(slashed(name)).name
            for folder, name in zip(folders, names, strict=True)
        )
        source = coco_id(named[1])
        yield Item(real, Kind.AUTHENTIC, source, split="test")
        yield Item(
            fake,
            Kind.BLENDED,
            source,
            mask=mask,
            generator="glide",
            guidance="text",
            split="test",
        )


COCO = Layout(
    "COCO: <set>/ and annotations/instances_<set>.json, images with an instance; no masks",
    _coco,
    published={"authentic": 117_266},
)
BFREE = Layout(
    "B-Free training set: COCO and six SD 2.1 versions; white = inpainted",
    _bfree,
    mask=WHITE,
    published={"authentic": 51_517, _BFREE_GENERATOR: 309_102},
)
COCOGLIDE = Layout(
    "CocoGlide: real/ fake/ mask/ table.csv; white = inpainted",
    _cocoglide,
    mask=WHITE,
    published={"authentic": 512, "blended": 512},
)
