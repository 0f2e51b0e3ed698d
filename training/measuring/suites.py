"""Sets of pictures for evaluations: manifests, or suites that list manifests."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from training.data import manifest
from training.data.manifest import Row, Split
from training.errors import UserError


class SuiteError(UserError):
    """A suite or one of its manifests cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Rows of one split of a manifest."""

    name: str
    folder: Path
    """Folder of the manifest; paths of the rows are relative to it."""
    rows: tuple[Row, ...]


class Suite(BaseModel, extra="forbid", frozen=True):
    """A TOML file with names and manifest paths under `[sets]`, relative to its folder."""

    sets: dict[str, Path]


def load_sets(sources: Sequence[Path], split: Split) -> list[PictureSet]:
    """Load the rows of one split.

    Args:
        sources: Manifests and suites (`.toml`). The set of a manifest is named after the file, or
            after its folder if the file is called `manifest`.
        split: Split to load; a manifest without splits is loaded whole.

    Raises:
        SuiteError: A file is missing or invalid, or has no rows of the split.
    """
    files: dict[str, Path] = {}
    for source in sources:
        for name, file in _named(source).items():
            if name in files:
                raise SuiteError(f"two sets are called {name!r}: {files[name]} and {file}")
            files[name] = file
    return [_load_set(name, file, split) for name, file in files.items()]


def check_sizes(sets: Sequence[PictureSet], crop: int | None) -> None:
    """Raise SuiteError if a picture is smaller than the crop (pixels)."""
    if crop is None:
        return
    rows = [(s.name, row, min(row.width, row.height)) for s in sets for row in s.rows]
    small = [(name, row) for name, row, side in rows if side < crop]
    if small:
        name, row = small[0]
        raise SuiteError(
            f"{name}: {row.path} has {row.width} x {row.height} pixels, too small for a crop of "
            f"{crop}, as are {len(small) - 1} more; the largest possible crop is "
            f"{min(side for *_, side in rows)}"
        )


def _named(source: Path) -> dict[str, Path]:
    if source.suffix != ".toml":
        stem = source.stem
        return {source.resolve().parent.name if stem == "manifest" else stem: source}
    try:
        suite = Suite.model_validate(tomllib.loads(source.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise SuiteError(f"{source}: {error}") from error
    return {name: source.parent / file for name, file in suite.sets.items()}


def _load_set(name: str, file: Path, split: Split) -> PictureSet:
    try:
        rows = tuple(manifest.read(file))
    except (OSError, ValueError) as error:
        raise SuiteError(f"{file}: {error}") from error
    splits = Counter(row.split for row in rows)
    chosen = rows if set(splits) <= {None} else tuple(r for r in rows if r.split == split)
    if not chosen:
        held = ", ".join(f"{count} {name or 'without split'}" for name, count in splits.items())
        raise SuiteError(f"{file}: no rows of split {split} ({held or 'it is empty'})")
    return PictureSet(name, file.resolve().parent, chosen)
