"""Splitting rows into train, validation and test, without shared originals.

The split of a picture depends only on its source id and the seed, so manifests that are split at
different times or separately agree: all versions of COCO's picture 9 get the same split in all data
sets.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from training.data.manifest import SPLITS, Row, Split
from training.errors import UserError


class SplitError(UserError):
    """The rows cannot be split as requested."""


@dataclass(frozen=True)
class Plan:
    """How rows are split.

    Attributes:
        validation: Share of the originals, 0 to 1.
        test: Share of the originals, 0 to 1; the rest is for training.
        seed: Random seed.
        generators: Generators to hold out from training, as shell patterns.
        sources: Source ids to hold out from training, as shell patterns (`imagenet/*`).
        held_out_to: Split of the held-out pictures.
    """

    validation: float = 0.1
    test: float = 0.0
    seed: int = 0
    generators: Sequence[str] = ()
    sources: Sequence[str] = ()
    held_out_to: Split = "test"

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test > 1:
            raise SplitError(
                f"shares of validation ({self.validation}) and test ({self.test}) must not be"
                " negative or exceed 1 in total"
            )
        if self.held_out_to == "train":
            raise SplitError("held-out pictures cannot go to train")


def assign(rows: Iterable[Row], plan: Plan) -> list[Row]:
    """Assign a split to every row; existing splits are replaced.

    Held-out generators: if an original also has pictures of other generators (or is itself in the
    set), its split is random as usual. Held-out pictures of this original go to the same split if
    it is `held_out_to`. Otherwise they get no split: in the original's split training would see the
    generator, and in the other the original would be in two splits.

    Returns:
        The rows, in order.

    Raises:
        SplitError: A requested split is empty, or a pattern matches nothing.
    """
    rows = list(rows)
    makers = {row.generator for row in rows}
    for pattern in plan.generators:
        if not any(_matches(maker, [pattern]) for maker in makers):
            known = ", ".join(sorted(filter(None, makers))) or "none"
            raise SplitError(f"no generator {pattern} to hold out; there are: {known}")
    for pattern in plan.sources:
        if not any(fnmatchcase(row.source_id, pattern) for row in rows):
            raise SplitError(f"no source id {pattern} to hold out")
    shared = {row.source_id for row in rows if not _matches(row.generator, plan.generators)}
    result = [row.model_copy(update={"split": _side(row, plan, shared)}) for row in rows]
    wanted: dict[Split, bool] = {
        "train": plan.validation + plan.test < 1,
        "validation": plan.validation > 0,
        "test": plan.test > 0,
    }
    if plan.generators or plan.sources:
        wanted[plan.held_out_to] = True
    there = {row.split for row in result}
    for split in SPLITS:
        if wanted[split] and split not in there:
            raise SplitError(
                f"split {split} is empty: none of {len(rows)} pictures and {len(_sources(rows))}"
                " originals was assigned to it"
            )
    return result


def leaks(rows: Iterable[Row]) -> dict[str, set[Split]]:
    """Return the originals that are in more than one split, with the splits."""
    sides: dict[str, set[Split]] = defaultdict(set)
    for row in rows:
        if row.split is not None:
            sides[row.source_id].add(row.split)
    return {source: found for source, found in sides.items() if len(found) > 1}


def _side(row: Row, plan: Plan, shared: set[str]) -> Split | None:
    if _matches(row.source_id, plan.sources):
        return plan.held_out_to
    if not _matches(row.generator, plan.generators):
        return _drawn(row.source_id, plan)
    if row.source_id not in shared or _drawn(row.source_id, plan) == plan.held_out_to:
        return plan.held_out_to
    return None


def _drawn(source_id: str, plan: Plan) -> Split:
    digest = hashlib.sha256(f"{plan.seed}:{source_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    if place < plan.test:
        return "test"
    return "validation" if place < plan.test + plan.validation else "train"


def _matches(name: str | None, patterns: Sequence[str]) -> bool:
    return name is not None and any(fnmatchcase(name, pattern) for pattern in patterns)


def _sources(rows: Iterable[Row]) -> set[str]:
    return {row.source_id for row in rows}
