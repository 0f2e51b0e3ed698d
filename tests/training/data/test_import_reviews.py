"""Import of reviews that moderators made with the service."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from app.contract.reviews import Decision, Review
from app.http import examples
from tests.training.data.importing import REGION, Imported, drawn, picture, plant
from training.data.importers.layout import Choices, LayoutError, Problem
from training.data.labels import Kind


def sha256(number: int) -> str:
    return hashlib.sha256(picture(number)).hexdigest()


def review(number: int, decision: str, detection: str | None = None, version: int = 1) -> str:
    """A line as the service exports it."""
    given = {"decision": Decision(decision), "sha256": sha256(number), "version": version}
    given["detection_id"] = detection or f"{number:032d}"
    return examples.REVIEW.model_copy(update=given).model_dump_json()


def exported(root: Path, *lines: str) -> Choices:
    table = root.parent / "reviews.jsonl"
    table.write_text("".join(f"{line}\n" for line in lines))
    return Choices(table=table)


def test_decisions_become_labels(root: Path) -> None:
    plant(
        root,
        {
            f"{sha256(1)}.jpg": picture(1),
            f"deep/{sha256(2)}.jpeg": picture(2),
            f"{3:032d}.jpeg": picture(3),  # named by the detection, as the service offers it
            f"masks/{3:032d}.png": drawn(REGION),
            f"{sha256(4)}.jpg": picture(4),
        },
    )
    table = exported(
        root,
        review(1, "genuine"),
        review(2, "ai"),
        review(3, "manipulated"),
        review(4, "manipulated"),
        review(5, "ai"),
    )
    done = Imported("reviews", root, choices=table)
    assert {name: row.kind for name, row in done.by_name.items()} == {
        sha256(1): Kind.AUTHENTIC,
        sha256(2): Kind.SYNTHETIC,
        f"{3:032d}": Kind.SPLICE,
    }
    assert (done.region(f"{3:032d}") == REGION).all()
    assert {row.source_id for row in done.rows} == {f"reviews/{sha256(n)}" for n in (1, 2, 3)}
    # The mask of 4 and the picture of 5 are not there.
    assert done.problems() == {Problem.MISSING: 2, Problem.KIND: 2}


def test_unsure_disagreeing_and_changed_pictures_are_left_out(root: Path) -> None:
    plant(root, {f"{sha256(number)}.jpg": picture(number) for number in range(1, 5)})
    plant(root, {f"{sha256(5)}.jpg": picture(6)})
    table = exported(
        root,
        review(1, "unsure"),
        review(2, "ai", "a"),
        review(2, "genuine", "b"),
        review(3, "ai", "c"),
        review(3, "unsure", "d"),
        review(4, "withdrawn"),
        review(5, "ai"),
    )
    done = Imported("reviews", root, choices=table)
    assert [row.path for row in done.rows] == [f"../{root.name}/{sha256(3)}.jpg"]
    assert done.problems() == {
        Problem.UNSURE: 1,
        Problem.DISAGREEMENT: 1,
        Problem.CONTENT: 1,
        Problem.KIND: 1,
        Problem.UNUSED: 1,  # the picture whose decision was withdrawn
    }
    assert done.report.problems[Problem.DISAGREEMENT] == [f"{sha256(2)}: ai, genuine"]


def test_newest_entry_of_a_history_counts(root: Path) -> None:
    plant(root, {f"{sha256(1)}.jpg": picture(1)})
    lines = [review(1, "genuine", version=10), review(1, "withdrawn", version=9)]
    lines.append(review(1, "ai", version=2))
    for order in (lines, lines[::-1]):
        (row,) = Imported("reviews", root, choices=exported(root, *order)).rows
        assert row.kind is Kind.AUTHENTIC


def test_rows_that_are_no_reviews_are_listed(root: Path) -> None:
    plant(root, {f"{sha256(1)}.jpg": picture(1)})
    good = json.loads(review(1, "genuine"))
    bad = [
        {"decision": "perhaps"},
        {"sha256": "../../etc/passwd"},
        {"version": None},
        {"detection_id": ""},
    ]
    table = exported(root, *(json.dumps({**good, **change}) for change in bad), json.dumps(good))
    done = Imported("reviews", root, choices=table)
    assert len(done.rows) == 1
    assert done.problems() == {Problem.NAME: len(bad)}
    with pytest.raises(LayoutError, match="--table"):
        Imported("reviews", root)


def test_the_fields_that_are_read_are_exported() -> None:
    assert {"detection_id", "version", "decision", "sha256"} <= Review.model_fields.keys()
