"""Search for pictures in folders with links, special files and unreadable entries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pictures import finding
from pictures.finding import SUFFIXES, Reason, find, name_of, summarise


def plant(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def names(folder: Path, **options: object) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find(folder, **options).pictures]


@pytest.mark.parametrize(
    "name",
    [
        *("IMG_0001.HEIC", "a.heif", "a.hif", "a.heics", "a.avif", "a.AVIFS"),
        *("a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.mpo", "a.png", "a.apng", "a.webp"),
        *("a.gif", "a.bmp", "a.dib", "a.tif", "a.TIFF", "no [/red] tag :smile:.jpg"),
    ],
)
def test_suffixes_of_pictures(name: str, tmp_path: Path) -> None:
    assert names(plant(tmp_path, name, "notes.txt", "jpg", "a.jpg.part")) == [name]


@pytest.mark.parametrize("first", ["", "import PIL.Image; PIL.Image.init()", "import pi_heif"])
def test_suffixes_do_not_depend_on_pillow_plugins(first: str) -> None:
    program = f"{first}\nimport json, pictures.finding as f; print(json.dumps(sorted(f.SUFFIXES)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(done.stdout) == sorted(SUFFIXES)


def test_files_are_sorted_by_path(tmp_path: Path) -> None:
    plant(tmp_path, "b/2.jpg", "b/1.jpg", "a.jpg", "c.jpg", "b-/3.jpg")
    assert names(tmp_path) == ["a.jpg", "b/1.jpg", "b/2.jpg", "b-/3.jpg", "c.jpg"]
    assert names(tmp_path, deep=False) == ["a.jpg", "c.jpg"]


def test_files_left_out_have_a_reason(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "album.jpg/b.jpg", "notes.txt", "._a.jpg", "raw.dng")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "gone").symlink_to("/no/such/folder")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    (tmp_path / "round.jpg").symlink_to("round.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    found = find(tmp_path)
    assert names(tmp_path) == ["a.jpg", "album.jpg/b.jpg"]
    reasons = {one.path.name: one.reason for one in found.left_out}
    assert reasons == {
        "notes.txt": Reason.NOT_A_PICTURE,
        "._a.jpg": Reason.NOT_A_PICTURE,
        "raw.dng": Reason.NOT_A_PICTURE,
        "gone.txt": Reason.NOT_A_PICTURE,
        "gone.jpg": Reason.UNREADABLE,
        "gone": Reason.UNREADABLE,
        "round.jpg": Reason.UNREADABLE,
        "pipe.png": Reason.SPECIAL,
    }
    assert {one.path.name for one in found.failures} == {"gone", "gone.jpg", "round.jpg"}
    assert all(one.detail for one in found.failures)
    assert len(found.failures) + len(found.passed_over) == len(found.left_out)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    plant(tmp_path / "outside", "x.jpg")
    top = plant(tmp_path / "top", "z/a.jpg", "z/y/b.jpg")
    (top / "z/y/up").symlink_to(top)
    (top / "a-first").symlink_to(top / "z")
    for name in ("linked", "twice"):
        (top / name).symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(top)
    assert names(top) == ["linked/x.jpg", "z/a.jpg", "z/y/b.jpg"]
    reasons = {one.path.relative_to(top).as_posix(): one.reason for one in find(top).left_out}
    circles = ("a-first", "linked/back", "twice", "z/y/up")
    assert reasons == dict.fromkeys(circles, Reason.SEARCHED)


def test_unreadable_folder_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "a/1.jpg", "locked/2.jpg", "z/3.jpg")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(finding.os, "scandir", refuse)
    found = find(tmp_path)
    assert names(tmp_path) == ["a/1.jpg", "z/3.jpg"]
    (left,) = found.failures
    assert (left.path, left.detail) == (tmp_path / "locked", "Permission denied")


def test_missing_folder(tmp_path: Path) -> None:
    found = find(tmp_path / "none")
    assert (found.pictures, len(found.failures)) == ([], 1)


def test_skipped_folders(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "maps/a.jpg.ai.png")
    found = find(tmp_path, skip=[tmp_path / "maps", tmp_path / "none"])
    assert [path.name for path in found.pictures] == ["a.jpg"]
    assert not found.left_out


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    plant(tmp_path, odd, "two\nlines\x1b[31m.jpg")
    assert sorted(names(tmp_path)) == sorted([odd, "two\nlines\x1b[31m.jpg"])
    shown = [name_of(path.relative_to(tmp_path)) for path in find(tmp_path).pictures]
    assert shown == ["caf\\xe9.jpg", "two\\nlines\\x1b[31m.jpg"]
    assert name_of(Path("ünïcödé 写真 .jpg")) == "ünïcödé 写真 .jpg"
    assert name_of(Path("bad\\xff.jpg")) != name_of(Path(os.fsdecode(b"bad\xff.jpg")))


def test_summary_counts_by_reason(tmp_path: Path) -> None:
    plant(tmp_path, *(f"{n}.txt" for n in range(12)))
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    lines = summarise(find(tmp_path).left_out)
    here = str(tmp_path)
    named = sorted(f"{here}/{n}.txt" for n in range(12))[:10]
    assert lines == [
        f"12 left out, not a picture by its name: {', '.join(named)} and 2 more",
        f"1 left out, cannot be read: {here}/gone.jpg (No such file or directory)",
    ]
