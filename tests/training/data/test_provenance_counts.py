"""Counts of files whose metadata states their origin."""

from __future__ import annotations

from pathlib import Path

from pictures.origin import Says
from pictures.provenance.watermark import MESSAGES
from tests import provenance
from tests.conftest import encode, photo
from tests.pictures.test_watermark import marked, natural
from training.data import manifest, provenance_counts
from training.data.labels import Kind
from training.data.provenance_counts import ProvenanceCounts


def test_statements_of_files_and_pixels() -> None:
    plain = encode(photo(64, 48), "PNG")
    assert provenance_counts.says(plain) is None
    assert provenance_counts.says(provenance.generated()) is Says.GENERATED
    assert provenance_counts.says(provenance.captured()) is Says.CAPTURED
    assert provenance_counts.says(plain, marked(natural(3), MESSAGES[0])) is Says.GENERATED


def test_counts_by_class(tmp_path: Path) -> None:
    files = {
        "a.jpg": (Kind.SYNTHETIC, provenance.generated()),
        "b.jpg": (Kind.SYNTHETIC, encode(photo(64, 48, 1))),
        "c.jpg": (Kind.AUTHENTIC, provenance.captured()),
        "d.jpg": (Kind.AUTHENTIC, encode(photo(64, 48, 2))),
    }
    rows = []
    for name, (kind, data) in files.items():
        (tmp_path / name).write_bytes(data)
        generator = "net" if kind is Kind.SYNTHETIC else None
        file = tmp_path / name
        rows.append(manifest.describe(file, tmp_path, kind, source_id=name, generator=generator))
    (tmp_path / "d.jpg").unlink()
    found = provenance_counts.count(rows, tmp_path)
    assert found["AI-generated"] == ProvenanceCounts(pictures=2, says={"generated": 1})
    assert found["other"] == ProvenanceCounts(pictures=2, says={"captured": 1})
