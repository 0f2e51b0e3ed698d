"""How much of a set tells on itself."""

from __future__ import annotations

from pathlib import Path

from pictures.provenance.statement import Says
from tests import provenance
from tests.conftest import encode, photo
from tests.pictures.test_watermark import MESSAGES, marked, natural
from training.data import manifest, telling
from training.data.labels import Kind


def test_files_and_pixels_tell() -> None:
    plain = encode(photo(64, 48), "PNG")
    assert telling.says(plain) is None
    assert telling.says(provenance.generated()) is Says.GENERATED
    assert telling.says(provenance.captured()) is Says.CAPTURED
    assert telling.says(plain, marked(natural(3), MESSAGES[0])) is Says.GENERATED


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
    found = telling.count(rows, tmp_path)
    assert found["AI-generated"] == telling.Telling(pictures=2, says={"generated": 1})
    assert found["other"] == telling.Telling(pictures=2, says={"captured": 1})
