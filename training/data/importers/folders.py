"""Plain folders of pictures: real and generated ones side by side, or real ones alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.data.importers.layout import Choices, Item, Layout, LayoutError, pictures
from training.data.labels import Kind

# Folder names in use for the two sides (GenImage, CNNDetection, UniversalFakeDetect, our own).
SIDES = {
    "real": Kind.AUTHENTIC,
    "0_real": Kind.AUTHENTIC,
    "nature": Kind.AUTHENTIC,
    "fake": Kind.SYNTHETIC,
    "1_fake": Kind.SYNTHETIC,
    "ai": Kind.SYNTHETIC,
}


def side_of(parts: tuple[str, ...]) -> int | None:
    """Index of the folder of a path that names the side; None: there is none."""
    return next((i for i, part in enumerate(parts[:-1]) if part.lower() in SIDES), None)


def _folders(root: Path, _: Choices) -> Iterator[Item]:
    """`…/real/…` and `…/fake/<generator>/…` or `<generator>/1_fake/…`, at any depth.

    A generator is the folder below the generated side, or the one above it. No masks.
    """
    found = False
    for file in pictures(root, deep=True):
        path = file.relative_to(root)
        side = side_of(path.parts)
        if side is None:
            continue
        found = True
        kind = SIDES[path.parts[side].lower()]
        generator = _generator(path.parts, side) if kind is Kind.SYNTHETIC else None
        yield Item(file, kind, path.with_suffix("").as_posix(), generator=generator)
    if not found:
        raise LayoutError(f"{root}: no pictures in folders named {', '.join(SIDES)}")


def _generator(parts: tuple[str, ...], side: int) -> str | None:
    if len(parts) > side + 2:
        return parts[side + 1]
    return parts[side - 1] if side > 0 else None


def _imagenet(root: Path, _: Choices) -> Iterator[Item]:
    """ImageNet, `<split>/<class>/<name>.JPEG` or flat: every picture below the folder is real."""
    for file in pictures(root, deep=True):
        yield Item(file, Kind.AUTHENTIC, f"imagenet/{file.stem}")


FOLDERS = Layout("real/ and fake/<generator>/ (also 0_real 1_fake, nature ai); no masks", _folders)
IMAGENET = Layout("ImageNet, real pictures at any depth; no masks", _imagenet)
