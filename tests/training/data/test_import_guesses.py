"""Importers report skipped and guessed facts; folders, rotated masks, all list formats."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pictures import decoding
from pictures.finding import Reason
from tests.conftest import encode, photo
from tests.training.data.importing import (
    HEIGHT,
    REGION,
    WIDTH,
    Imported,
    drawn,
    picture,
    plant,
)
from training.cli import app
from training.data import manifest, originals
from training.data.importers.layout import Choices, Problem
from training.data.labels import Kind
from training.data.pixels import orientation_of, turn

SHOWN = {
    1: REGION,
    2: REGION[:, ::-1],
    3: REGION[::-1, ::-1],
    4: REGION[::-1],
    5: REGION.T,
    6: np.rot90(REGION, -1),
    7: REGION[::-1, ::-1].T,
    8: np.rot90(REGION),
}
"""The region as an orientation of EXIF shows it."""


def oriented(orientation: int, data: Image.Image, image_format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(data, image_format, exif=exif)


@pytest.mark.parametrize(
    ("path", "kind", "generator", "split"),
    [
        ("nature/fake/x.png", Kind.SYNTHETIC, None, None),
        ("fake/sd/real/x.png", Kind.AUTHENTIC, None, None),
        ("ai/0_real/x.png", Kind.AUTHENTIC, None, None),
        ("train/REAL/x.png", Kind.AUTHENTIC, None, "train"),
        ("test/FAKE/x.png", Kind.SYNTHETIC, None, "test"),
        ("train/progan/airplane/1_fake/x.png", Kind.SYNTHETIC, "progan", "train"),
        ("val/progan/train/1_fake/x.png", Kind.SYNTHETIC, "progan", "validation"),
        ("train/progan/airplane/0_real/x.png", Kind.AUTHENTIC, None, "train"),
        ("test/stylegan/1_fake/x.png", Kind.SYNTHETIC, "stylegan", "test"),
        ("stylegan/1_fake/x.png", Kind.SYNTHETIC, "stylegan", None),
        ("sd14/train/ai/x.png", Kind.SYNTHETIC, "sd14", "train"),
        ("Validation/fake/flux/x.png", Kind.SYNTHETIC, "flux", "validation"),
        ("fake/flux/test/x.png", Kind.SYNTHETIC, "flux", "test"),
        ("fake/test/flux/x.png", Kind.SYNTHETIC, "flux", "test"),
    ],
)
def test_folders_give_class_generator_and_split(
    path: str, kind: Kind, generator: str | None, split: str | None, root: Path
) -> None:
    plant(root, {path: picture(1, "PNG")})
    done = Imported("folders", root)
    (row,) = done.rows
    assert (row.kind, row.generator, row.split) == (kind, generator, split)
    assert done.problems() == {}


def test_class_called_train_is_not_a_split(root: Path) -> None:
    names = ("airplane", "train")
    plant(root, {f"progan/{n}/1_fake/x.png": picture(i, "PNG") for i, n in enumerate(names)})
    done = Imported("folders", root)
    assert [(row.generator, row.split) for row in done.rows] == [("progan", None)] * 2
    assert done.problems() == {Problem.GENERATOR: 2, Problem.SPLIT: 1}


def test_splits_of_imagenet_are_kept(root: Path) -> None:
    plant(root, {"train/n1/a.JPEG": picture(1), "val/n1/b.JPEG": picture(2)})
    assert [row.split for row in Imported("imagenet", root).rows] == ["train", "validation"]


def test_genimage_uses_the_innermost_class_folder(root: Path) -> None:
    plant(root, {"Midjourney/nature/train/ai/a.png": picture(1, "PNG")})
    (row,) = Imported("genimage", root).rows
    assert (row.kind, row.generator, row.split) == (Kind.SYNTHETIC, "midjourney", "train")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_masks_are_rotated_with_their_pictures(
    orientation: int, image_format: str, root: Path
) -> None:
    data = oriented(orientation, photo(WIDTH, HEIGHT), image_format)
    assert orientation_of(data) == orientation
    plant(root, {f"Tp/x.{image_format.lower()}": data, "Gt/x.png": drawn(REGION)})
    done = Imported("pairs", root, choices=Choices(kind=Kind.SPLICE))
    assert np.array_equal(done.region("x"), SHOWN[orientation])
    guessed = orientation in (2, 3, 4)  # from size alone the mask may lie either way
    assert done.problems() == ({Problem.MASK_TURN: 1} if guessed else {})


def test_masks_of_upright_pictures_are_unchanged(root: Path) -> None:
    data = oriented(6, photo(WIDTH, HEIGHT), "WEBP")  # whose EXIF turns nothing, as in browsers
    plant(root, {"Tp/x.webp": data, "Gt/x.png": drawn(REGION)})
    done = Imported("pairs", root, choices=Choices(kind=Kind.SPLICE))
    assert np.array_equal(done.region("x"), REGION)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotations_equal_the_decoder(orientation: int) -> None:
    pixels = np.asarray(photo(WIDTH, HEIGHT))
    data = oriented(orientation, Image.fromarray(pixels), "PNG")
    shown = decoding.decode(data, max_pixels=10**6)
    assert np.array_equal(shown[:, :, 0], turn(pixels[:, :, 0], orientation))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_mask_with_own_orientation(image_format: str, root: Path) -> None:
    mask = Image.fromarray(REGION.astype(np.uint8) * 255)
    plant(
        root,
        {
            "Tp/x.jpg": oriented(6, photo(WIDTH, HEIGHT), "JPEG"),
            f"Gt/x.{image_format.lower()}": oriented(6, mask, image_format),
        },
    )
    done = Imported("pairs", root, choices=Choices(kind=Kind.SPLICE))
    assert np.array_equal(done.region("x"), SHOWN[6])
    assert done.problems() == {}


ENCODERS = {
    "plain": str.encode,
    "utf-8 mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "backslashes": lambda text: text.replace("/", "\\").encode(),
}
JSON_BACKSLASHES = {**ENCODERS, "backslashes": lambda text: text.replace("/", "\\\\").encode()}
FORGED = "88_000000000009.jpg_000000000025.jpg"
LISTS = {
    "mvss-list": ("list.txt", "Tp/x.jpg Gt/x.png 1\nAu/a.jpg None 0\n"),
    "imdl-json": ("list.json", json.dumps([["Tp/x.jpg", "Gt/x.png"], ["Au/a.jpg", "Negative"]])),
    "tampcoco": ("sp_COCO_train_list.txt", f"sp_images/{FORGED}.jpg,sp_masks/{FORGED}.png\n" * 2),
    "synthwildx": ("list.csv", "url,filename,typ\nu,dalle3/b.jpg,dalle3\nu,real/a.jpg,real\n"),
    "sharegpt-4o-image": ("text_to_image.json", json.dumps([{"output_image": "images/a.jpg"}])),
    "cocoglide": (
        "table.csv",
        "real,fake,mask,prompt\nreal/a.jpg,fake/glide_inpainting_val2017_9_up.png,mask/m.png,p\n",
    ),
    "nist16": (
        "reference/manipulation/NC2016-manipulation-ref.csv",
        "ProbeFileName|ProbeMaskFileName|BaseFileName|IsTarget\nprobe/x.jpg|mask/x.png|w/b.jpg|Y\n",
    ),
    "b-free": ("train_list.csv", "id,category\nimages/000000000009.png,cat\n"),
    "coco": (
        "annotations/instances_set.json",
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "below/a.jpg"}],
                "annotations": [{"image_id": 1}],
            }
        ),
    ),
    "table.csv": ("t.csv", "path,mask,kind,source_id\nTp/x.jpg,Gt/x.png,splice,s\n"),
    "table.tsv": ("t.tsv", "path\tmask\tkind\tsource_id\nTp/x.jpg\tGt/x.png\tsplice\ts\n"),
    "table.json": (
        "t.json",
        json.dumps([{"path": "Tp/x.jpg", "mask": "Gt/x.png", "kind": "splice", "source_id": "s"}]),
    ),
    "table.jsonl": (
        "t.jsonl",
        json.dumps({"path": "Tp/x.jpg", "mask": "Gt/x.png", "kind": "splice", "source_id": "s"})
        + "\n",
    ),
}


@pytest.mark.parametrize("written", sorted(ENCODERS))
@pytest.mark.parametrize("name", sorted(LISTS))
def test_lists_from_other_operating_systems(name: str, written: str, root: Path) -> None:
    file, text = LISTS[name]
    encoders = JSON_BACKSLASHES if ".json" in file else ENCODERS
    mask = drawn(REGION)
    plant(
        root,
        {
            **{f"{folder}/x.jpg": picture(1) for folder in ("Tp", "probe")},
            **{f"{folder}/a.jpg": picture(2) for folder in ("Au", "real", "images", "set/below")},
            **{"Gt/x.png": mask, "mask/m.png": mask, f"sp_masks/{FORGED}.png": mask},
            "mask/x.png": drawn(REGION, black=True),
            f"sp_images/{FORGED}.jpg": picture(3),
            "dalle3/b.jpg": picture(4),
            "fake/glide_inpainting_val2017_9_up.png": picture(5, "PNG"),
            "COCO_real_512/000000000009.png": picture(6, "PNG"),
            file: encoders[written](text),
        },
    )
    layout, _, table = name.partition(".")
    layout = "coco-inpaint" if table else layout
    needs_table = table or layout in ("mvss-list", "imdl-json")
    choices = Choices(kind=Kind.SPLICE, table=root / file if needs_table else None)
    done = Imported(layout, root, choices=choices)
    expected = {"cocoglide": 2, "synthwildx": 2, "mvss-list": 2, "imdl-json": 2}
    assert len(done.rows) == expected.get(layout, 1)
    assert Problem.NAME not in done.problems()
    assert not any("\\" in row.path or "\\" in row.source_id for row in done.rows)


def test_backslash_in_existing_file_name(root: Path) -> None:
    plant(root, {"odd\\name.jpg": picture(1), "list.txt": "odd\\name.jpg None 0\n"})
    assert len(Imported("mvss-list", root).rows) == 1


def test_manifest_with_byte_order_mark_is_read(tmp_path: Path) -> None:
    plant(tmp_path, {"a.jpg": picture(1)})
    row = manifest.describe(tmp_path / "a.jpg", tmp_path, Kind.AUTHENTIC, source_id="a")
    manifest.write([row], tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_bytes(codecs.BOM_UTF8 + (tmp_path / "m.jsonl").read_bytes())
    assert list(manifest.read(tmp_path / "m.jsonl")) == [row]


ODD = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("folders", {f"real/{ODD}.jpg": 1, f"fake/{ODD}/x.jpg": 2, "real/b.jpg": 3}),
        ("imagenet", {f"{ODD}.jpg": 1, "b.jpg": 3}),
        ("pairs", {f"Au/{ODD}.jpg": 1, "Au/b.jpg": 3}),
    ],
)
def test_file_name_that_is_not_utf8_is_left_out(
    layout: str, files: dict[str, int], root: Path
) -> None:
    plant(root, {name: picture(seed) for name, seed in files.items()} | {"Gt/x": "", "Tp/x": ""})
    done = Imported(layout, root)
    manifest.write(done.rows, done.folder / "m.jsonl")
    assert list(done.by_name) == ["b"]
    texts = done.report.problems[Problem.UNREADABLE]
    assert len(texts) == len(files) - 1
    assert all("caf\\xe9" in text for text in texts)


def test_rows_that_are_not_utf8_are_left_out(root: Path) -> None:
    lines = b"b.jpg None 0\ncaf\xe9.jpg None 0\nTp/x.jpg Gt/caf\xe9.png 1\n"
    pictures = {"b.jpg": picture(1), f"{ODD}.jpg": picture(2), "Tp/x.jpg": picture(3)}
    plant(root, pictures | {f"Gt/{ODD}.png": drawn(REGION), "list.txt": lines})
    done = Imported("mvss-list", root, choices=Choices(kind=Kind.SPLICE))
    manifest.write(done.rows, done.folder / "m.jsonl")
    assert set(done.by_name) == {"b", "x"}
    assert np.array_equal(done.region("x"), REGION)  # its mask is written under another name
    assert done.problems() == {Problem.UNREADABLE: 1}
    plant(root, {"t.csv": b"path,generator\nb.jpg,caf\xe9\nTp/x.jpg,sd\n"})
    table = Imported("coco-inpaint", root, choices=Choices(table=root / "t.csv"))
    assert list(table.by_name) == ["x"]


def test_originals_of_a_folder(tmp_path: Path) -> None:
    plant(tmp_path, {"a.JPG": picture(1), "b.jfif": picture(2), f"{ODD}.jpg": picture(3)})
    plant(tmp_path, {"d.jpg/c.png": picture(4, "PNG"), "notes.txt": "", "broken.jpg": "x"})
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "memory.jpg").symlink_to("/proc/self/mem")
    found = originals.load(tmp_path)
    assert [row.path for row in found.rows] == ["a.JPG", "b.jfif", "d.jpg/c.png"]
    assert len(found.unreadable) == 4
    assert [one.path.name for one in found.passed_over] == ["notes.txt"]


def test_unlisted_pictures_are_reported(root: Path) -> None:
    plant(
        root,
        {
            "real/a.jpg": picture(1),
            "elsewhere/b.jpg": picture(2),
            "c.heic": b"",
            "notes.txt": "",
        },
    )
    (root / "gone.jpg").symlink_to("nowhere")
    done = Imported("folders", root)
    assert done.problems() == {Problem.UNUSED: 2}
    assert {one.path.name: one.reason for one in done.report.left_out} == {
        "notes.txt": Reason.NOT_A_PICTURE,
        "gone.jpg": Reason.UNREADABLE,
    }


def test_pictures_reached_by_links_are_named_once(root: Path) -> None:
    plant(root.parent / "disk", {"real/a.jpg": picture(1)})
    root.mkdir()
    (root / "part").symlink_to(root.parent / "disk")
    (root / "again").symlink_to(root.parent / "disk")
    done = Imported("folders", root)
    assert (len(done.rows), done.problems()) == (1, {})
    assert [one.reason for one in done.report.left_out] == [Reason.SEARCHED]


def test_guesses_from_a_table_are_reported(root: Path) -> None:
    plant(root, {"Tp/x.jpg": picture(1), "Tp/y.jpg": picture(2), "Gt/x.png": drawn(REGION)})
    plant(root, {"t.csv": "path,mask\nTp/x.jpg,Gt/x.png\nTp/y.jpg,\n"})
    done = Imported("coco-inpaint", root, choices=Choices(table=root / "t.csv"))
    assert done.kinds == {Kind.INPAINT: 1, Kind.AUTHENTIC: 1}
    assert done.problems() == {Problem.KIND: 2, Problem.SOURCE: 1}


def test_forgeries_without_a_kind_are_reported(root: Path) -> None:
    plant(root, {"Tp/x.jpg": picture(1), "Gt/x.png": drawn(REGION)})
    assert Imported("pairs", root).problems() == {Problem.KIND: 1}
    assert Imported("pairs", root, choices=Choices(kind=Kind.COPY_MOVE)).problems() == {}


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("synthwildx", {"list.csv": "filename,typ\na.jpg\na.jpg,real\n", "real/a.jpg": 1}),
        (
            "cocoglide",
            {
                "table.csv": "real,fake,mask\na.jpg\n"
                "a.jpg,glide_inpainting_val2017_9_up.png,m.png\n",
                "real/a.jpg": 1,
                "fake/x.jpg": 2,
            },
        ),
        ("imdl-json", {"l.json": '[["a.jpg"], 7, ["a.jpg", "Negative"]]', "a.jpg": 1}),
    ],
)
def test_short_rows_are_left_out(layout: str, files: dict[str, str | int], root: Path) -> None:
    plant(root, {n: picture(d) if isinstance(d, int) else d for n, d in files.items()})
    done = Imported(layout, root)
    assert len(done.rows) == 1
    assert done.problems()[Problem.NAME] in (1, 2)


def test_name_too_long_for_its_mask_is_left_out(root: Path) -> None:
    long = "n" * 248
    half = encode(Image.fromarray(REGION), "PNG")  # has to be written anew
    plant(root, {f"Tp/{long}.jpg": picture(1), f"Gt/{long}.png": half})
    plant(root, {"Tp/b.jpg": picture(2), "Gt/b.png": half})
    done = Imported("pairs", root, choices=Choices(kind=Kind.SPLICE))
    assert list(done.by_name) == ["b"]
    assert done.problems() == {Problem.NAME: 1}


def test_command_counts_by_reason_and_shows_names(root: Path) -> None:
    plant(
        root,
        {
            "real/a [edited].jpg": picture(1),
            "fake/[red]sd/b[x].jpg": picture(2),
            "fake/:smile:/c.jpg": "broken [/]",
            f"real/{ODD}.jpg": picture(3),
            "elsewhere/d.jpg": picture(4),
            "notes.txt": "",
        },
    )
    runner = CliRunner()
    answer = runner.invoke(app, ["data", "import", "folders", str(root)])
    assert answer.exit_code == 0, answer.output
    assert "[red]sd" in answer.stdout
    counts = {
        cells[1].strip(): cells[2].strip()
        for line in answer.stdout.splitlines()
        if len(cells := line.split("│")) == 5
    }
    assert counts["unreadable"] == "2"
    assert counts["not taken by the layout"] == "1"
    assert counts["not a picture by its name"] == "1"
    problems = (root / "manifest.jsonl.problems").read_text()
    assert len(problems.splitlines()) == 4
    for name in ("fake/:smile:/c.jpg", "caf\\xe9.jpg", "elsewhere/d.jpg", "notes.txt"):
        assert name in problems
        assert name in answer.stderr
    again = runner.invoke(app, ["data", "import", "folders", str(root)])
    assert (root / "manifest.jsonl.problems").read_text() == problems, again.output


@pytest.mark.parametrize(
    "command",
    [
        ["data", "crop", "{}", "out", "--size", "9"],
        ["data", "audit", "{}"],
        ["data", "preview", "{}", "out.png"],
        ["data", "split", "{}", "--out", "out.jsonl"],
        ["evaluate", "none", "{}", "--out", "out"],
    ],
)
def test_errors_are_printed_without_markup(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a [/b] [red]c[/red] :smile:.jsonl"
    plant(tmp_path, {name: "no manifest\n"})
    answer = CliRunner().invoke(app, [name if part == "{}" else part for part in command])
    assert answer.exit_code == 1, answer.output
    assert name in answer.stderr


def test_replaced_splits_are_reported(root: Path) -> None:
    plant(root, {f"test/REAL/{n}.jpg": picture(n) for n in range(3)})
    runner, out = CliRunner(), str(root / "all [/b].jsonl")
    assert runner.invoke(app, ["data", "import", "folders", str(root)]).exit_code == 0
    split = ["data", "split", str(root / "manifest.jsonl"), "--out", out, "--validation", "0"]
    answer = runner.invoke(app, split)
    assert answer.exit_code == 0, answer.output
    assert "3 pictures were in another split before" in answer.stderr
    assert f"3 rows in {out}" in answer.stdout
    split[2] = out
    again = runner.invoke(app, [*split[:4], out, *split[5:]])
    assert again.exit_code == 0, again.output
    assert "another split" not in again.stderr
