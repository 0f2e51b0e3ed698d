"""Plain folders of real and generated pictures, or of real pictures only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from training.data.importers.layout import (
    SPLITS,
    Choices,
    Item,
    Layout,
    LayoutError,
    Problem,
    pictures,
)
from training.data.labels import Kind
from training.data.manifest import Split

# Folder names of the classes (GenImage, CNNDetection, UniversalFakeDetect, our own).
SIDES = {
    "real": Kind.AUTHENTIC,
    "0_real": Kind.AUTHENTIC,
    "nature": Kind.AUTHENTIC,
    "fake": Kind.SYNTHETIC,
    "1_fake": Kind.SYNTHETIC,
    "ai": Kind.SYNTHETIC,
}

Parts = tuple[str, ...]
"""Path parts of a file, relative to the data set's folder."""


def side_of(parts: Parts) -> int | None:
    """Return the index of the innermost folder that names the class, or None."""
    found = [i for i, part in enumerate(parts[:-1]) if part.lower() in SIDES]
    return found[-1] if found else None


class Splits:
    """Folders of a data set that are published splits.

    `train` may also be an object class, as in CNNDetection. So a folder is a split only if all its
    siblings have names of splits.
    """

    def __init__(self, files: Iterable[Parts]) -> None:
        """Collect the folders of the data set's pictures."""
        self._beside: dict[Parts, set[str]] = defaultdict(set)
        for parts in files:
            for depth in range(len(parts) - 1):
                self._beside[parts[:depth]].add(parts[depth].lower())

    def of(self, parts: Parts) -> int | None:
        """Return the index of the outermost folder that is a published split."""
        return next(
            (i for i in self._like(parts) if self._beside[parts[:i]] <= SPLITS.keys()), None
        )

    def doubtful(self, parts: Parts) -> str | None:
        """Return a folder with the name of a split in a path without a split."""
        like = next(self._like(parts), None)
        return None if like is None or self.of(parts) is not None else parts[like]

    def _like(self, parts: Parts) -> Iterator[int]:
        return (i for i, part in enumerate(parts[:-1]) if part.lower() in SPLITS)


def _folders(root: Path, _: Choices) -> Iterator[Item]:
    """`…/real/…` and `…/fake/<generator>/…` or `<generator>/[<class>/]1_fake/…`, at any depth.

    The innermost folder with a class name gives the class. Published splits (`train`, `val`, `test`
    …) are kept. The generator is the folder below that of the generated class, else the first one
    above it, below that of the split if there is one. No masks.
    """
    files = {file: file.relative_to(root).parts for file in pictures(root, deep=True)}
    sided = {file: parts for file, parts in files.items() if side_of(parts) is not None}
    if not sided:
        raise LayoutError(f"{root}: no pictures in folders named {', '.join(SIDES)}")
    splits = Splits(sided.values())
    for file, parts in sided.items():
        side = side_of(parts)
        assert side is not None  # noqa: S101 - the others are left out above
        kind = SIDES[parts[side].lower()]
        place = splits.of(parts)
        guesses: list[tuple[Problem, str]] = []
        if like := splits.doubtful(parts):
            guesses.append((Problem.SPLIT, f"folder {like} may be a class"))
        generator = None
        if kind is Kind.SYNTHETIC:
            generator, sure = _generator(parts, side, place)
            if not sure:
                guesses.append((Problem.GENERATOR, f"{generator}"))
        yield Item(
            file,
            kind,
            Path(*parts).with_suffix("").as_posix(),
            generator=generator,
            split=_split(parts, place),
            guesses=tuple(guesses),
        )


def _split(parts: Parts, place: int | None) -> Split | None:
    return None if place is None else SPLITS[parts[place].lower()]


def _generator(parts: Parts, side: int, split: int | None) -> tuple[str | None, bool]:
    """Return the folder that names the generator, if any, and whether it is unambiguous."""
    below = [part for i, part in enumerate(parts[:-1]) if i > side and i != split]
    if below:
        return below[0], True
    above = [i for i in range(side) if i != split and parts[i].lower() not in SIDES]
    if not above:
        return None, True
    inside = [i for i in above if split is not None and i > split]
    if inside:  # <split>/<generator>/<class>
        return parts[inside[0]], len(inside) <= 2
    place = above[0] if split is None else above[-1]  # <generator>/<class>, <generator>/<split>
    return parts[place], len(above) == 1


def _imagenet(root: Path, _: Choices) -> Iterator[Item]:
    """ImageNet, `<split>/<class>/<name>.JPEG` or flat; all pictures are real."""
    files = {file: file.relative_to(root).parts for file in pictures(root, deep=True)}
    splits = Splits(files.values())
    for file, parts in files.items():
        split = _split(parts, splits.of(parts))
        yield Item(file, Kind.AUTHENTIC, f"imagenet/{file.stem}", split=split)


FOLDERS = Layout(
    "real/ and fake/<generator>/, or <generator>/[<class>/]1_fake (also 0_real, nature, ai), with "
    "or without train/ val/ test/ around them; no masks",
    _folders,
)
IMAGENET = Layout("ImageNet, real pictures in any subfolders; no masks", _imagenet)
