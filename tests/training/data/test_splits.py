"""Splits by source id."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from training.data.labels import Kind
from training.data.manifest import Row
from training.data.splits import Plan, SplitError, assign, leaks


def row(source: str, version: int = 0, generator: str | None = None) -> Row:
    return Row(
        path=f"{source}-{version}-{generator}.jpg",
        kind=Kind.SYNTHETIC if generator else Kind.AUTHENTIC,
        generator=generator,
        source_id=source,
        split="train",  # of the data set itself: forgotten
        width=1,
        height=1,
        format="JPEG",
        sha256="",
    )


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """400 originals with five versions each, four of them by two generators."""
    versions = [(0, None), (1, "a"), (2, "a"), (3, "b"), (4, "b")]
    return [row(f"coco/{n}", version, maker) for n in range(400) for version, maker in versions]


PLANS: dict[str, Plan] = {
    "plain": Plan(0.2, 0.2),
    "another seed": Plan(0.2, 0.2, seed=7),
    "generator held out": Plan(0.2, 0.2, generators=["b"]),
    "generator held out for validation": Plan(0.3, 0, generators=["b"], held_out_to="validation"),
    "sources held out": Plan(0.2, 0.2, sources=["coco/1*"]),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_no_original_is_in_two_splits(rows: list[Row], plan: Plan) -> None:
    result = assign(rows, plan)
    sides: dict[str, set[str]] = {}
    for done in result:
        if done.split is not None:
            sides.setdefault(done.source_id, set()).add(done.split)
    assert all(len(found) == 1 for found in sides.values())
    assert leaks(result) == {}
    assert [done.path for done in result] == [given.path for given in rows]


def test_leaks_are_found() -> None:
    given = [row("x"), row("x", 1).model_copy(update={"split": "test"}), row("y")]
    assert leaks(given) == {"x": {"train", "test"}}


def test_shares_are_as_requested(rows: list[Row]) -> None:
    counts = Counter(done.split for done in assign(rows, Plan(0.2, 0.1)))
    assert counts["validation"] / len(rows) == pytest.approx(0.2, abs=0.06)
    assert counts["test"] / len(rows) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(
    "change",
    [lambda rows: rows[:700], lambda rows: random.Random(1).sample(rows, len(rows))],
    ids=["part of it", "another order"],
)
def test_split_depends_only_on_source_and_seed(
    rows: list[Row], change: Callable[[list[Row]], list[Row]]
) -> None:
    whole = {done.path: done.split for done in assign(rows, Plan(0.2, 0.2))}
    assert all(whole[d.path] == d.split for d in assign(change(rows), Plan(0.2, 0.2)))


def test_seeds_differ(rows: list[Row]) -> None:
    first, second = (assign(rows, Plan(0.2, 0.2, seed=seed)) for seed in (0, 1))
    assert first != second


def test_held_out_generators_are_never_trained_on(rows: list[Row]) -> None:
    alone = [row(f"b/{n}", 0, "b") for n in range(5)]  # no other version: nothing to leak
    result = assign([*rows, *alone], PLANS["generator held out"])
    where = {(done.generator, done.split) for done in result}
    assert ("b", "train") not in where
    assert ("b", "validation") not in where
    assert {done.split for done in result if done.source_id.startswith("b/")} == {"test"}
    assert ("b", None) in where  # versions of what is trained on: on no side


def test_held_out_sources_are_never_trained_on(rows: list[Row]) -> None:
    result = assign(rows, PLANS["sources held out"])
    assert {d.split for d in result if d.source_id.startswith("coco/1")} == {"test"}


@pytest.mark.parametrize(("validation", "test"), [(0.6, 0.6), (-0.1, 0.2)])
def test_impossible_shares_are_errors(validation: float, test: float) -> None:
    with pytest.raises(SplitError, match="must not be negative"):
        Plan(validation, test)


def test_nothing_is_held_out_to_train() -> None:
    with pytest.raises(SplitError, match="cannot go to train"):
        Plan(held_out_to="train")


def test_empty_part_is_an_error() -> None:
    with pytest.raises(SplitError, match="split validation is empty"):
        assign([row("x")], Plan(0.001))


@pytest.mark.parametrize(
    "plan", [Plan(0.2, generators=["a", "c*"]), Plan(0.2, sources=["imagenet/*"])]
)
def test_hold_out_pattern_without_match_is_an_error(rows: list[Row], plan: Plan) -> None:
    with pytest.raises(SplitError, match="to hold out"):
        assign(rows, plan)
