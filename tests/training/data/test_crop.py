"""Cutting pictures to one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.training.data.forging import command, make_maps, make_pictures
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
