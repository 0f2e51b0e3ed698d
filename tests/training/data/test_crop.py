"""Cutting pictures to one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import photo
from tests.training.data.forging import command, make_maps, make_pictures, rows_of
from training.data import manifest


def test_pictures_and_masks_are_cropped_and_small_ones_skipped(tmp_path: Path) -> None:
    file = make_pictures(tmp_path)
    forged = tmp_path / "forged"
    assert (
        command("tamper", "copy-move", file, forged, "--objects", make_maps(tmp_path)).exit_code
        == 0
    )
    answer = command("crop", forged / "manifest.jsonl", tmp_path / "cut", "--size", 60)
    assert answer.exit_code == 0, answer.output
    before = {Path(row.path).stem: row for row in manifest.read(forged / "manifest.jsonl")}
    rows = manifest.read(tmp_path / "cut" / "manifest.jsonl")
    after = {Path(row.path).stem.split("_", 1)[1]: row for row in rows}
    small = {name for name, row in before.items() if min(row.width, row.height) < 60}
    assert f"{len(small)} smaller pictures skipped" in answer.output
    assert small
    assert after.keys() == before.keys() - small
    for name, row in after.items():
        old = before[name]
        assert (row.width, row.height, row.format, row.split) == (60, 60, "PNG", old.split)
        top, left = (old.height - 60) // 2, (old.width - 60) // 2
        for folder, new_file, old_file in (
            (forged, row.path, old.path),
            (forged, row.mask, old.mask),
        ):
            assert new_file
            assert old_file
            whole = np.asarray(Image.open(folder / old_file))
            cut = np.asarray(Image.open(tmp_path / "cut" / new_file))
            np.testing.assert_array_equal(cut, whole[top : top + 60, left : left + 60])


def test_mask_of_another_size_is_reported_and_left_out(tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    pictures = make_pictures(tmp_path)
    command("tamper", "copy-move", pictures, forged, "--objects", make_maps(tmp_path))
    rows = rows_of(forged)
    row = next(row for row in rows if min(row.width, row.height) >= 60)
    Image.new("L", (row.width + 1, row.height)).save(forged / str(row.mask))
    answer = command("crop", forged / "manifest.jsonl", tmp_path / "cut", "--size", 60)
    assert answer.exit_code == 0, answer.output
    assert "not of the size of" in answer.stderr
    left = rows_of(tmp_path / "cut")
    assert Path(row.path).stem not in {Path(one.path).stem.split("_", 1)[1] for one in left}


def test_pictures_with_the_longest_names_are_forged_aligned_and_cropped(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    maps = tmp_path / "maps"
    maps.mkdir()
    for number in (1, 2):
        name = f"{number}" + "\u00fc" * 125  # 251 bytes, and a suffix of 4
        photo(96, 96, seed=number).save(folder / f"{name}.jpg")
        region = Image.new("L", (96, 96))
        region.paste(1, (20, 20, 50, 50))
        region.save(maps / f"{name}.png")
    for how in ("copy-move", "splice"):
        answer = command("tamper", how, folder, tmp_path / how, "--objects", maps)
        assert answer.exit_code == 0, answer.output
        assert len(rows_of(tmp_path / how)) == 2
    file = tmp_path / "splice" / "manifest.jsonl"
    for tool, *options in (["align", "--everything"], ["crop", "--size", "60"]):
        answer = command(tool, file, tmp_path / tool, *options)
        assert answer.exit_code == 0, answer.output
        assert len(rows_of(tmp_path / tool)) == 2
    answer = command("inpaint", folder, tmp_path / "repaired", "--engine", "classical")
    assert answer.exit_code == 0, answer.output
