"""Audit, format alignment and contact sheet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import encode, photo
from tests.provenance import PARAMETERS
from tests.training.data.forging import command, make_maps, make_pictures, pixels, rows_of
from training.data import manifest
from training.data.audit import connect
from training.data.labels import Kind
from training.data.manifest import Row
from training.data.separation import describe, separations

PAIRS = 12

Encoder = Callable[[Image.Image, int], bytes]


def make_set(
    root: Path,
    real: Encoder,
    fake: Encoder,
    *,
    side: int = 48,
    fake_side: int = 48,
    split: str | None = "train",
) -> Path:
    """Photos and as many synthetic pictures, and the manifest of them."""
    rows = []
    for i in range(2 * PAIRS):
        generated = i % 2 == 1
        kind = Kind.SYNTHETIC if generated else Kind.AUTHENTIC
        data = (fake if generated else real)(photo(*(fake_side if generated else side,) * 2, i), i)
        suffix = "png" if data.startswith(b"\x89PNG") else "jpg"
        file = root / kind / f"{i}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        row = manifest.describe(
            file,
            root,
            kind,
            source_id=f"{kind}-{i}",
            generator="net" if generated else None,
            split=split,  # type: ignore[arg-type]
        )
        rows.append(row)
    manifest.write(rows, root / "manifest.jsonl")
    return root / "manifest.jsonl"


def jpeg(quality: int) -> Encoder:
    return lambda picture, _: encode(picture, quality=quality)


def varied_jpeg(picture: Image.Image, number: int) -> bytes:
    return encode(picture, quality=70 + number)


def png(picture: Image.Image, _: int) -> bytes:
    return encode(picture, "PNG")


def test_png_fakes_fail_and_pass_when_aligned(tmp_path: Path) -> None:
    file = make_set(tmp_path, jpeg(96), png)
    answer = command("audit", file)
    assert answer.exit_code == 1, answer.output
    assert "FAILED: format" in answer.stdout
    assert "gamma-train data align" in answer.stdout
    assert "PNG 100 %" in " ".join(answer.stdout.split())
    aligned = command("align", file, tmp_path / "aligned")
    assert aligned.exit_code == 0, aligned.output
    assert "quality 96" in aligned.stdout
    assert "4:2:0" in aligned.stdout
    answer = command("audit", tmp_path / "aligned" / "manifest.jsonl")
    assert answer.exit_code == 0, answer.output
    assert "passed" in answer.stdout


def test_aligning_only_lossless_files_leaves_a_quality_leak(tmp_path: Path) -> None:
    file = make_set(tmp_path, varied_jpeg, png)
    assert command("align", file, tmp_path / "paper").exit_code == 0
    answer = command("audit", tmp_path / "paper" / "manifest.jsonl")
    assert answer.exit_code == 1
    assert "FAILED: JPEG quality" in answer.stdout
    assert "--everything" in answer.stdout
    assert command("align", file, tmp_path / "all", "--everything").exit_code == 0
    answer = command("audit", tmp_path / "all" / "manifest.jsonl")
    assert answer.exit_code == 0, answer.output
    assert {row.jpeg_quality for row in rows_of(tmp_path / "all")} == {96}


def test_which_files_are_aligned(tmp_path: Path) -> None:
    file = make_set(tmp_path, jpeg(80), png)
    answer = command("align", file, tmp_path / "out", "--subsampling", "4:4:4")
    assert answer.exit_code == 0, answer.output
    before, after = list(manifest.read(file)), rows_of(tmp_path / "out")
    for old, new in zip(before, after, strict=True):
        assert (old.kind, old.source_id, old.generator) == (new.kind, new.source_id, new.generator)
        assert new.format == "JPEG"
        if old.format == "JPEG":
            assert new.sha256 == old.sha256
            assert (tmp_path / "out" / new.path).resolve() == (tmp_path / old.path).resolve()
        else:
            assert new.jpeg_quality == 96
            close = pixels(tmp_path / "out" / new.path).astype(int) - pixels(tmp_path / old.path)
            assert np.abs(close).max() < 20
            with Image.open(tmp_path / "out" / new.path) as picture:
                assert {layer[1:3] for layer in picture.layer} == {(1, 1)}


def test_sizes_that_separate_the_classes_are_found(tmp_path: Path) -> None:
    answer = command("audit", make_set(tmp_path, jpeg(96), jpeg(96), fake_side=40))
    assert answer.exit_code == 1
    assert "FAILED: width, height, pixels" in answer.stdout
    assert command("audit", tmp_path / "manifest.jsonl", "--limit", 1).exit_code == 0


def test_unusual_sizes_are_not_memorised(tmp_path: Path) -> None:
    def row(i: int) -> Row:
        size = int(rng.integers(100, 2000))
        kind = Kind.SYNTHETIC if i % 2 else Kind.AUTHENTIC
        return Row(
            path=f"{i}.jpg",
            kind=kind,
            source_id=str(i),
            width=size,
            height=400,
            format="JPEG",
            jpeg_quality=int(rng.integers(60, 100)),
            sha256=str(i),
        )

    rng = np.random.default_rng(0)
    found = separations([row(i) for i in range(400)])
    assert {s.attribute for s in found} >= {"format", "JPEG quality", "width", "height"}
    assert max(s.balanced_accuracy for s in found) < 0.6
    assert separations([row(0), row(2)]) == []


def test_forgeries_and_their_originals_are_one_class(tmp_path: Path) -> None:
    pictures, out = make_pictures(tmp_path, 8), tmp_path / "out"
    answer = command(
        *("tamper", "splice", pictures, out, "--objects", make_maps(tmp_path, 8), "--count", 8)
    )
    assert answer.exit_code == 0
    answer = command("audit", pictures, out / "manifest.jsonl")
    assert answer.exit_code == 0, answer.output
    assert "only one class" in answer.stdout


def test_versions_of_an_original_in_two_splits_are_a_leak(tmp_path: Path) -> None:
    file = make_set(tmp_path, jpeg(96), jpeg(96))
    rows = list(manifest.read(file))
    moved = rows[1].model_copy(update={"source_id": rows[0].source_id, "split": "test"})
    manifest.write([rows[0], moved, *rows[2:]], file)
    answer = command("audit", file)
    assert answer.exit_code == 1
    assert "originals with versions in several splits: 1" in answer.stdout


def test_identical_files_are_found_across_manifests(tmp_path: Path) -> None:
    first = make_set(tmp_path / "a", jpeg(96), jpeg(96))
    second = make_set(tmp_path / "b", jpeg(96), jpeg(96), split="test")
    rows = [r.model_copy(update={"source_id": f"b-{r.source_id}"}) for r in manifest.read(second)]
    manifest.write(rows, second)
    answer = command("audit", first, second)
    assert answer.exit_code == 1
    assert f"identical files in several splits: {2 * PAIRS}" in answer.stdout


def test_identical_files_with_two_labels_are_found(tmp_path: Path) -> None:
    file = make_set(tmp_path, jpeg(96), jpeg(96))
    rows = list(manifest.read(file))
    twice = rows[1].model_copy(update={"kind": Kind.AUTHENTIC, "source_id": "other"})
    manifest.write([*rows, twice], file)
    answer = command("audit", file)
    assert answer.exit_code == 1
    assert "identical files with different labels: 1" in answer.stdout


def test_similar_pictures_of_other_originals_are_reported(tmp_path: Path) -> None:
    file = make_set(tmp_path, jpeg(96), jpeg(96))
    (tmp_path / "again.jpg").write_bytes(encode(photo(48, 48, 0), quality=60))
    again = manifest.describe(
        tmp_path / "again.jpg", tmp_path, Kind.AUTHENTIC, source_id="again", split="test"
    )
    rows = list(manifest.read(file))
    manifest.write([*rows, again], file)
    answer = command("audit", file)
    assert answer.exit_code == 0, answer.output
    assert "look alike, in several splits: 1" in answer.stdout
    assert "again.jpg" in answer.stdout.replace("\n", "")
    same = again.model_copy(update={"source_id": rows[0].source_id, "split": "train"})
    manifest.write([*rows, same], file)
    alike = command("audit", file)
    assert alike.exit_code == 0, alike.output
    assert "look alike" not in alike.stdout


def test_files_with_telling_metadata_are_reported(tmp_path: Path) -> None:
    def told(picture: Image.Image, _: int) -> bytes:
        info = PngInfo()
        info.add_text("parameters", PARAMETERS)
        return encode(picture, "PNG", pnginfo=info)

    file = make_set(tmp_path, png, told)
    remark = f"AI-generated pictures whose files say `generated`: {PAIRS}"
    assert remark in " ".join(command("audit", file).stdout.split())
    assert "whose files say" not in command("audit", file, "--quick").stdout


def test_files_that_contradict_the_manifest_are_reported(tmp_path: Path) -> None:
    file = make_set(tmp_path, jpeg(96), jpeg(96))
    rows = list(manifest.read(file))
    (tmp_path / rows[0].path).unlink()
    (tmp_path / rows[1].path).write_bytes(encode(photo(48, 48, 99), quality=96))
    (tmp_path / rows[2].path).write_bytes(b"\xff\xd8\xff broken")
    answer = command("audit", file)
    assert answer.exit_code == 1
    assert "unusable files: 3" in answer.stdout
    assert "changed since" in answer.stdout.replace("\n", " ")
    assert command("audit", file, "--quick").exit_code == 0


def test_missing_masks_are_found(tmp_path: Path) -> None:
    pictures, out = make_pictures(tmp_path), tmp_path / "out"
    maps = make_maps(tmp_path)
    assert command("tamper", "copy-move", pictures, out, "--objects", maps).exit_code == 0
    shutil.rmtree(out / "cm_masks")
    answer = command("audit", out / "manifest.jsonl")
    assert answer.exit_code == 1
    assert "no such mask" in answer.stdout.replace("\n", " ")


def test_hash_groups_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 2**63, 60, dtype=np.uint64)
    flips = [np.uint64(1) << rng.integers(0, 64, dtype=np.uint64) for _ in range(240)]
    near = [bases[i % 60] ^ flips[i] ^ flips[(7 * i + 1) % 240] for i in range(120)]
    values = np.unique(np.concatenate([bases, np.array(near, np.uint64)]))
    distances = np.bitwise_count(values[:, None] ^ values[None, :])
    reach = distances <= 3
    for _ in range(8):  # paths of up to 256 steps
        reach = reach @ reach
    chains = connect(values)
    np.testing.assert_array_equal(chains[:, None] == chains[None, :], reach)
    assert len(set(chains)) == 60


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["PNG", "PNG", "JPEG", "PNG"], "PNG 75 %, JPEG 25 %"),
        ([96, 96, None, None], "96 50 %, none 50 %"),
        (list(range(10)), "0 to 9, median 4.5"),
    ],
)
def test_value_descriptions(values: list[object], text: str) -> None:
    assert describe(values) == text


def test_contact_sheet(tmp_path: Path) -> None:
    pictures, out = make_pictures(tmp_path), tmp_path / "out"
    answer = command(
        *("inpaint", pictures, out, "--engine", "classical", "--mask", "random-box", "--count", 2)
    )
    assert answer.exit_code == 0
    (tmp_path / "net.png").write_bytes(encode(photo(30, 30, 9), "PNG"))
    synthetic = manifest.describe(tmp_path / "net.png", out, Kind.SYNTHETIC, source_id="net")
    rows = [*rows_of(out)[:1], synthetic]
    manifest.write(rows, out / "two.jsonl")
    sheet_file = tmp_path / "sheet.png"
    answer = command("preview", out / "two.jsonl", sheet_file, "--columns", 1)
    assert answer.exit_code == 0, answer.output
    assert "2 pictures" in answer.stdout
    sheet = pixels(sheet_file).astype(int)
    top = 8 + 3 * 14  # the margin and three lines of text
    tile = sheet[top : top + 25, :]
    # Synthetic comes first: AI mask white, manipulation mask grey.
    assert (tile[2:20, 8 + 200 + 2 : 8 + 200 + 20] == 255).all()
    assert (tile[2:20, 8 + 400 + 2 : 8 + 400 + 20] == 128).all()
    second = sheet[top + 192 + 3 * 14 + 8 :, :]
    row = rows[0]
    assert (second[2:20, 8 + 200 + 2 : 8 + 200 + 20] == 0).all()
    manipulation = second[: row.height, 8 + 400 : 8 + 400 + row.width, 0] > 127
    with Image.open(out / str(row.mask)) as mask:
        assert (manipulation == (np.asarray(mask) > 0)).mean() > 0.95


def test_empty_contact_sheet_is_an_error(tmp_path: Path) -> None:
    manifest.write([], tmp_path / "empty.jsonl")
    answer = command("preview", tmp_path / "empty.jsonl", tmp_path / "sheet.png")
    assert answer.exit_code == 1
    assert not (tmp_path / "sheet.png").exists()
