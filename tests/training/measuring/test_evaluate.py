"""Reports of evaluations, from stored results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pictures.findings import UNTRAINED, View
from training.data.changes import JPEG96, RAW, Format
from training.data.labels import Kind
from training.measuring import evaluate
from training.measuring.scores import Result, score_all


def result(kind: Kind, source: str, probability: float) -> Result:
    return Result(
        set_name="s",
        path=source,
        sha256="h",
        kind=kind,
        change="raw",
        generator=None,
        source_id=source,
        ai_generated=kind is not Kind.AUTHENTIC,
        probability=probability,
    )


def test_sources_with_both_classes_are_compared_on_their_own() -> None:
    results = [
        result(Kind.AUTHENTIC, "real/photo/game/1", 0.4),
        result(Kind.SYNTHETIC, "ai/some/game/2", 0.3),
        result(Kind.BLENDED, "real/photo/game/1", 0.9),  # no whole picture
        result(Kind.AUTHENTIC, "real/photo/alone/3", 0.1),
        result(Kind.SYNTHETIC, "ai/some/other/4", 0.9),
    ]
    matched = evaluate._report(results, UNTRAINED, 0).matched
    assert {name: (m.n, m.auc) for name, m in matched.items()} == {"game": (2, 0.0)}


@pytest.mark.parametrize(
    ("modes", "changes"),
    [
        ([Format.RAW], [RAW]),
        ([Format.JPEG96], [JPEG96]),
        ([Format.PAPER], [RAW, JPEG96]),
        (list(Format), [RAW, JPEG96]),
    ],
)
def test_only_the_changes_of_the_modes_are_scored(modes: Sequence[Format], changes: object) -> None:
    assert evaluate.changes_of(modes) == changes


def test_scores_survive_odd_names_and_a_cut_character(tmp_path: Path) -> None:
    """The last line of an interrupted run may end within a character."""
    names = ["a\u2028b.png", "a\x85b.png", "c.png"]
    lines = [result(Kind.AUTHENTIC, name, 0.5).model_dump_json().encode() + b"\n" for name in names]
    kept = tmp_path / "scores.jsonl"
    kept.write_bytes(b"".join(lines) + b'{"set_name":"\xe5')
    detector: Any = SimpleNamespace(look=lambda pictures: [])
    score_all(detector, [], View.CENTER, kept, Result, lambda job, found: None, lambda: None)
    assert kept.read_bytes() == b"".join(lines)
