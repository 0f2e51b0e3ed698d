"""Table 1, the manifest, and the commands that write manifests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.conftest import encode, photo
from training.data import manifest
from training.data.labels import LABELS, Kind, MaskLabel
from training.data.manifest import ManifestError, Row


@pytest.mark.parametrize(
    ("kind", "ai_generated", "manipulation", "ai"),
    [
        (Kind.AUTHENTIC, False, MaskLabel.NONE, MaskLabel.NONE),
        (Kind.INPAINT, True, MaskLabel.REGION, MaskLabel.ALL),
        (Kind.BLENDED, True, MaskLabel.REGION, MaskLabel.REGION),
        (Kind.COPY_MOVE, False, MaskLabel.REGION, MaskLabel.NONE),
        (Kind.SPLICE, False, MaskLabel.REGION, MaskLabel.NONE),
        (Kind.SYNTHETIC, True, MaskLabel.UNSUPERVISED, MaskLabel.ALL),
        (Kind.CLASSICAL_INPAINT, False, MaskLabel.REGION, MaskLabel.NONE),
    ],
)
def test_table_1(kind: Kind, ai_generated: bool, manipulation: MaskLabel, ai: MaskLabel) -> None:
    labels = LABELS[kind]
    assert (labels.ai_generated, labels.manipulation, labels.ai) == (ai_generated, manipulation, ai)


def test_every_kind_has_labels() -> None:
    assert set(LABELS) == set(Kind)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    files = {
        "real/one.jpg": encode(photo(64, 48, 1), quality=75),
        "real/two.png": encode(photo(64, 48, 2), "PNG"),
        "real/copy-of-one.jpg": encode(photo(64, 48, 1), quality=75),
        "fake/sd/three.jpg": encode(photo(64, 64, 3), quality=96),
        "fake/sd/broken.jpg": b"\xff\xd8\xff",
        "glide/1_fake/four.jpg": encode(photo(64, 64, 4), quality=30),
        "elsewhere/five.jpg": encode(photo(64, 64, 5)),
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 96, 100])
def test_jpeg_quality_is_estimated_from_the_tables(tmp_path: Path, quality: int) -> None:
    (tmp_path / "x.jpg").write_bytes(encode(photo(64, 64), quality=quality))
    row = manifest.describe(tmp_path / "x.jpg", tmp_path, Kind.AUTHENTIC, source_id="x")
    assert row.jpeg_quality == quality


def test_kinds_with_region_labels_need_a_mask() -> None:
    row = {"path": "a.jpg", "source_id": "a", "width": 1, "height": 1, "format": "JPEG"}
    with pytest.raises(ValidationError, match="needs a region mask"):
        Row(**row, kind=Kind.BLENDED, sha256="")
    assert Row(**row, kind=Kind.BLENDED, sha256="", mask="m.png").mask == "m.png"


@pytest.fixture
def rows() -> list[Row]:
    common = {"source_id": "coco/9", "width": 64, "height": 48}
    return [
        Row(
            path="a.jpg", kind=Kind.AUTHENTIC, format="JPEG", jpeg_quality=75, sha256="1", **common
        ),
        Row(
            path="b.png",
            kind=Kind.BLENDED,
            mask="m/b.png",
            generator="sdxl",
            mask_type="box",
            guidance="text",
            split="validation",
            format="PNG",
            sha256="2",
            **common,
        ),
    ]


@pytest.mark.parametrize("name", ["m.jsonl", "m.parquet"])
def test_write_and_read_round_trip(tmp_path: Path, rows: list[Row], name: str) -> None:
    assert manifest.write(rows, tmp_path / "new" / name) == 2
    assert list(manifest.read(tmp_path / "new" / name)) == rows


@pytest.mark.parametrize("name", ["m.jsonl", "m.parquet"])
def test_failure_leaves_the_old_manifest(tmp_path: Path, rows: list[Row], name: str) -> None:
    def failing() -> Iterator[Row]:
        yield rows[0]
        raise OSError("no space left")

    manifest.write(rows, tmp_path / name)
    with pytest.raises(OSError, match="no space left"):
        manifest.write(failing(), tmp_path / name)
    assert list(manifest.read(tmp_path / name)) == rows
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "row 2: "),
        ('{"path": "x.jpg"}', "row 2: kind: Field required"),
        ("[]", "row 2: row: Input should be"),
    ],
)
def test_errors_name_file_row_and_field(
    tmp_path: Path, rows: list[Row], line: str, message: str
) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text(f"{rows[0].model_dump_json()}\n{line}\n")
    with pytest.raises(ManifestError, match=f"m.jsonl: {message}"):
        list(manifest.read(file))


def test_invalid_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ManifestError, match=r"m\.parquet"):
        list(manifest.read(tmp_path / "m.parquet"))


def test_rebased_rows_name_the_same_files(rows: list[Row]) -> None:
    moved = manifest.rebase(rows[1], Path("/sets/one"), Path("/sets/all"))
    assert (moved.path, moved.mask) == ("../one/b.png", "../one/m/b.png")


def gamma_train(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_import_command(folders: Path) -> None:
    answer = gamma_train("import", "folders", folders)
    assert answer.returncode == 0, answer.stderr
    assert "4 rows" in answer.stdout
    rows = list(manifest.read(folders / "manifest.jsonl"))
    assert [row.kind for row in rows].count(Kind.SYNTHETIC) == 2
    assert all((folders / row.path).is_file() for row in rows)
    problems = (folders / "manifest.jsonl.problems").read_text()
    assert "duplicate: real/one.jpg = real/copy-of-one.jpg" in problems
    assert "unreadable: " in problems


def test_split_command_joins_manifests(folders: Path, tmp_path: Path) -> None:
    assert gamma_train("import", "folders", folders).returncode == 0
    out = tmp_path / "all" / "split.parquet"
    answer = gamma_train("split", folders / "manifest.jsonl", "--out", out, "--validation", 0.5)
    assert answer.returncode == 0, answer.stderr
    rows = list(manifest.read(out))
    assert {row.split for row in rows} == {"train", "validation"}
    assert all((out.parent / row.path).is_file() for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folders"], "no pictures in folders named"),
        (["nothing"], "is none of folders, imagenet"),
        (["coco-inpaint", "--column", "picture=img"], "with a FIELD of path, mask"),
    ],
)
def test_errors_of_the_command(tmp_path: Path, arguments: list[str], message: str) -> None:
    name, *options = arguments
    answer = gamma_train("import", name, tmp_path, *options)
    assert answer.returncode != 0
    assert message in " ".join(answer.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_import_does_not_overwrite_its_table(tmp_path: Path) -> None:
    table = tmp_path / "manifest.jsonl"
    table.write_text("{}")
    answer = gamma_train("import", "coco-inpaint", tmp_path, "--table", table)
    assert answer.returncode != 0
    assert table.read_text() == "{}"
