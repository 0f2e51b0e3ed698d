"""`gamma detect` on folders with all kinds of files.

The model is a fake and pictures are decoded in this process; `test_cli.py` uses the real ones.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import app.command.detect
import worker.main
from app.command.cli import app as gamma
from model.engine import ModelOutputError
from pictures import animation
from pictures.decoders import Frame
from pictures.provenance.statement import Reading
from tests.conftest import encode, photo
from tests.samples import heic

MIN_SIDE = 30

Detect = Callable[..., Result]


class Model:
    """Scores a picture by its mean, and counts the calls."""

    def __init__(self) -> None:
        self.info = SimpleNamespace(trained=True, version="v1", digest="weights")
        self.asked = 0
        self.broken: Callable[[int], object] = lambda count: None

    def check(self) -> None:
        pass

    def not_judged(self, picture: np.ndarray) -> str | None:
        return "too_small" if min(picture.shape[:2]) < MIN_SIDE else None

    def examine(self, picture: np.ndarray, view: object, frames: int) -> Any:
        self.asked += 1
        self.broken(self.asked)
        mean = float(picture.mean())
        mask = SimpleNamespace(values=np.full(picture.shape[:2], int(mean), np.uint8))
        return SimpleNamespace(
            ai_probability=mean / 255,
            verdict="authentic",
            manipulated=None,
            notes=("first", "second"),
            masks=(mask, mask),
        )


class Decoders:
    def __init__(self, count: int, *, max_pixels: int, provenance: object) -> None:
        self._max_pixels = max_pixels

    def statements(self, data: bytes) -> Reading:
        return Reading()

    def frames(self, data: bytes, most: int) -> list[Frame]:
        found = animation.decode(data, most=most, max_pixels=self._max_pixels)
        return [Frame(*moment, np.asarray(picture)) for moment, picture in found]

    def close(self) -> None:
        pass


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model()
    monkeypatch.setattr(worker.main, "load_detector", lambda settings: model)
    monkeypatch.setattr(app.command.detect, "Decoders", Decoders)
    return model


@pytest.fixture
def detect(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Detect:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    return lambda *arguments, **env: CliRunner().invoke(gamma, ["detect", *arguments], env=env)


def plant(*names: str) -> None:
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encode(photo(40, 30, seed)))


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_phone_folder(detect: Detect) -> None:
    plant("phone/IMG_0003.JPG", "phone/IMG_0004.jpe", "phone/pair.MPO")
    for name in ("phone/IMG_0001.HEIC", "phone/IMG_0002.heic"):
        Path(name).write_bytes(heic())
    Path("phone/IMG_0001.MOV").touch()
    answer = detect("--json", "phone")
    assert answer.exit_code == 0
    assert [Path(row["file"]).name for row in rows(answer.stdout)] == [
        *("IMG_0001.HEIC", "IMG_0002.heic", "IMG_0003.JPG", "IMG_0004.jpe", "pair.MPO"),
    ]
    assert all(0 < row["ai_probability"] < 1 for row in rows(answer.stdout))
    assert answer.stderr == "1 left out, not a picture by its name: phone/IMG_0001.MOV\n"


def test_untrained_model_prints_a_warning(detect: Detect, model: Model) -> None:
    plant("a.jpg")
    assert "untrained" not in detect("--json", "a.jpg").stderr
    model.info.trained = False
    assert "untrained" in detect("--json", "a.jpg").stderr


def test_unreadable_files_are_reported_and_others_scored(detect: Detect) -> None:
    plant("all/a.jpg", "all/album.jpg/b.jpg", os.fsdecode(b"all/caf\xe9.jpg"), "all/z.jpg")
    Path("all/broken.jpg").write_bytes(encode(photo())[:400])
    Path("all/empty.png").touch()
    Path("all/gone.jpg").symlink_to("/no/such/file")
    Path("all/round.jpg").symlink_to("round.jpg")
    Path("all/memory.jpg").symlink_to("/proc/self/mem")  # opens, and cannot be read
    Path("all/album.jpg/up").symlink_to(Path("all").resolve())
    answer = detect("--json", "all")
    assert answer.exit_code == 1
    found = {Path(row["file"]).name: "error" not in row for row in rows(answer.stdout)}
    assert found == {
        **dict.fromkeys(("a.jpg", "b.jpg", "caf\\xe9.jpg", "z.jpg"), True),
        **dict.fromkeys(("broken.jpg", "empty.png", "gone.jpg", "round.jpg", "memory.jpg"), False),
    }
    assert "4 pictures scored, 5 failed" in answer.stderr
    assert "1 left out, link to a folder that is searched anyway: all/album.jpg/up" in answer.stderr


def test_cells_of_csv(detect: Detect) -> None:
    plant("a/1.jpg")
    (row,) = csv.DictReader(io.StringIO(detect("--csv", "a").stdout))
    assert (row["manipulated"], row["notes"], row["error"]) == ("", "first second", "")


def test_csv_is_safe_in_a_spreadsheet(detect: Detect) -> None:
    plant("=1+1.jpg")
    Path("@broken.jpg").write_bytes(b"no picture")
    answer = detect("--csv", ".")
    found = [row["file"] for row in csv.DictReader(io.StringIO(answer.stdout))]
    assert found == ["'=1+1.jpg", "'@broken.jpg"]


def test_a_small_picture_gets_no_score(detect: Detect, model: Model) -> None:
    plant("enough.jpg")
    Path("small.jpg").write_bytes(encode(photo(MIN_SIDE - 1, 900)))
    answer = detect("--json", "--overlays", "maps", "enough.jpg", "small.jpg")
    assert answer.exit_code == 0, answer.stderr
    enough, small = rows(answer.stdout)
    assert enough["not_judged"] is None
    assert small["not_judged"] == "too_small"
    assert (small["ai_probability"], small["verdict"], small["manipulated"]) == (None, None, None)
    assert model.asked == 1
    assert not list(Path("maps").glob("small*"))


def test_which_of_how_many_frames_was_scored(detect: Detect) -> None:
    plant("still.jpg")
    frames = [photo(40, 40, seed) for seed in range(3)]
    moving = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    Path("moving.gif").write_bytes(moving)
    still, moving = rows(detect("--json", "still.jpg", "moving.gif").stdout)
    assert (still["frame"], still["frames"]) == (1, 1)
    assert (moving["frame"], moving["frames"]) == (1, 3)


def test_the_frame_with_the_highest_score_counts(detect: Detect) -> None:
    """The model's score is the mean brightness."""
    shades = [Image.new("L", (40, 40), level) for level in (50, 60, 200, 70)]
    moving = encode(shades[0], "PNG", save_all=True, append_images=shades[1:], duration=50)
    Path("moving.png").write_bytes(moving)
    (row,) = rows(detect("--json", "--frames", "8", "moving.png").stdout)
    assert (row["frame"], row["frames"], row["view"]) == (3, 4, "auto 8")
    assert row["ai_probability"] == pytest.approx(200 / 255, abs=1e-5)
    assert [one["time_ms"] for one in row["examined"]] == [0, 50, 100, 150]
    detect("--output", "scores.jsonl", "moving.png")
    refused = detect("--output", "scores.jsonl", "--frames", "2", "moving.png")
    assert "auto 2" in refused.output.replace("\n", " ")


def test_missing_files(detect: Detect) -> None:
    plant("a.jpg")
    answer = detect("--json", "gone.jpg", "a.jpg")
    assert answer.exit_code == 1
    assert rows(answer.stdout)[0] == {"file": "gone.jpg", "error": "No such file or directory"}
    assert "ai_probability" in rows(answer.stdout)[1]


@pytest.mark.parametrize("form", ["--json", "--csv", "--view=auto"])
def test_a_folder_without_pictures(form: str, detect: Detect) -> None:
    Path("empty").mkdir()
    answer = detect(form, "empty")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr == "empty: contains no pictures\n"
    plant("full/a.jpg")
    answer = detect("--json", "empty", "full")
    assert (answer.exit_code, len(rows(answer.stdout))) == (1, 1)
    assert "empty: contains no pictures" in answer.stderr


def test_picture_given_twice_is_scored_once(detect: Detect, model: Model) -> None:
    plant("album/a.jpg", "album/b.jpg")
    answer = detect("--json", "album/b.jpg", "album", "./album/b.jpg")
    assert len(rows(answer.stdout)) == 2
    assert model.asked == 2


def maps(folder: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png")}


@pytest.mark.parametrize(
    ("given", "folders"),
    [
        (["trip"], {"1", "2"}),
        (["trip/1", "trip/2"], {"1", "2"}),
        (["trip/1/img.jpg", "trip/2"], {"1", "2"}),
        (["trip/1/../1", "trip/2/img.jpg"], {"1", "2"}),
        (["trip/1"], {"."}),
    ],
)
def test_heat_maps_mirror_the_folders(given: list[str], folders: set[str], detect: Detect) -> None:
    plant("trip/1/img.jpg", "trip/2/img.jpg")
    assert detect("--json", "--overlays", "maps", *given).exit_code == 0
    heads = ("ai", "manipulation")
    expected = {Path(f"{folder}/img.jpg.{head}.png") for folder in folders for head in heads}
    assert maps("maps") == {path.as_posix() for path in expected}


def test_heat_maps_replace_no_files(detect: Detect) -> None:
    plant("a/img.jpg")
    Path("b").mkdir()
    Path("b/img.jpg").write_bytes(encode(photo(40, 30, 9)))
    Path("maps").mkdir()
    assert detect("--json", "--overlays", "maps", "a").exit_code == 0
    assert detect("--json", "--overlays", "maps", "a").exit_code == 0  # the same ones
    before = Path("maps/img.jpg.ai.png").read_bytes()
    answer = detect("--json", "--overlays", "maps", "b")
    assert answer.exit_code == 1
    assert answer.stderr.count("heat map not written: maps/img.jpg") == 2
    assert "ai_probability" in rows(answer.stdout)[0]
    assert Path("maps/img.jpg.ai.png").read_bytes() == before
    assert len(list(Path("maps").iterdir())) == 2


def test_unwritable_heat_map_does_not_affect_others(detect: Detect) -> None:
    long = "n" * 240 + ".jpg"
    plant(f"a/{long}", "a/z.jpg")
    answer = detect("--json", "--overlays", "maps", "a")
    assert answer.exit_code == 1
    assert answer.stderr.count("File name too long") == 2
    assert all("ai_probability" in row for row in rows(answer.stdout))
    assert maps("maps") == {"z.jpg.ai.png", "z.jpg.manipulation.png"}


def test_heat_maps_are_not_scored_by_the_next_run(detect: Detect) -> None:
    plant("a/img.jpg")
    for _ in range(2):
        assert len(rows(detect("--json", "--overlays", "a/maps", "a").stdout)) == 1
    answer = detect("--json", "--overlays", "a", "a")
    assert answer.exit_code == 2
    assert "--overlays must not be a folder that is searched" in answer.stderr


def test_interrupted_scan_resumes(detect: Detect, model: Model) -> None:
    def interrupt(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    plant(*(f"album/{n}.jpg" for n in range(4)))
    Path("album/0.jpg").write_bytes(b"broken")
    model.broken = interrupt
    command = ("album", "--output", "out/scores.jsonl")
    answer = detect(*command)
    assert answer.exit_code == 130
    assert "run the same command to resume" in answer.stderr
    scores = Path("out/scores.jsonl")
    assert len(rows(scores.read_text())) == 3
    plant("album/0.jpg")  # repaired between the runs
    scores.write_bytes(scores.read_bytes() + b'{"file": "album/3.j')  # as after a killed run

    answer = detect(*command)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert "2 pictures scored, 0 failed, 2 skipped" in answer.stderr
    assert model.asked == 5
    done = rows(scores.read_text())
    assert sorted(row["file"] for row in done) == [f"album/{n}.jpg" for n in range(4)]
    assert not any("error" in row for row in done)

    before = scores.read_bytes()
    assert detect(*command).exit_code == 0
    assert (scores.read_bytes(), model.asked) == (before, 5)


def test_scores_of_another_model_or_view_are_not_mixed(detect: Detect, model: Model) -> None:
    plant("a/1.jpg")
    assert detect("a", "--output", "scores.jsonl").exit_code == 0
    before = Path("scores.jsonl").read_bytes()
    answer = detect("a", "--output", "scores.jsonl", "--view", "center")
    assert (answer.exit_code, "holds scores of view auto" in answer.stderr) == (1, True)
    model.info.digest = "other weights"
    answer = detect("a", "--output", "scores.jsonl")
    assert (answer.exit_code, "holds scores of model_digest weights" in answer.stderr) == (1, True)
    assert Path("scores.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"my notes", b"my notes\n", b'{"a": 1}\n', b"[]\n", b"\xff\xd8\xff\n"]
)
def test_file_without_scores_is_not_changed(content: bytes, detect: Detect) -> None:
    plant("a/1.jpg")
    Path("mine").write_bytes(content)
    answer = detect("a", "--output", "mine")
    assert answer.exit_code == 1
    assert "choose another file" in answer.stderr
    assert Path("mine").read_bytes() == content


NAMES = ("IMG [edited].jpg", "a[/b]c.jpg", "[red]x[/red].jpg", "[link=u]x.jpg", ":smile:.jpg")


@pytest.mark.parametrize("name", [*NAMES, "n" * 90 + ".jpg", "写真.jpg"])
def test_names_are_printed_literally(name: str, detect: Detect) -> None:
    plant(f"a/{name}")
    table = detect("a")
    assert (table.exit_code, table.exception) == (0, None)
    assert f"a/{name}" in table.stdout
    missing = detect("a", "--checkpoint", name, "--output", f"a/{name}")
    assert missing.exit_code == 1
    assert f"gamma: a/{name} does not hold scores" in missing.stderr
    setting = detect("a", GAMMA_CONFIG=name)
    assert setting.exit_code == 2
    assert f"settings: GAMMA_CONFIG is not a file: {name}" in setting.stderr


def test_narrow_terminal_wraps_names(detect: Detect) -> None:
    plant("a/a name [with] brackets that is longer than any column of it.jpg")
    table = detect("a", FORCE_COLOR="1", NO_COLOR="1")
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", table.stdout)
    cells = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    letters = "a/a name [with] brackets that is longer than any column of it.jpg".replace(" ", "")
    assert len(cells) > 1
    assert "".join(cells).replace(" ", "") == letters


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_progress_bar_leaves_standard_output_unchanged(form: str, detect: Detect) -> None:
    plant("a/1.jpg", "a/2.jpg")
    quiet = detect(form, "a")
    shown = detect(form, "a", FORCE_COLOR="1", TERM="xterm")  # standard error as a terminal
    assert "2/2" in shown.stderr
    assert shown.stdout == quiet.stdout


def test_nan_output_gives_no_score(
    detect: Detect, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine(*_: object) -> None:
        raise ModelOutputError("the network answers with NaN or infinity")

    plant("a/1.jpg")
    monkeypatch.setattr(model, "examine", examine)
    answer = detect("--json", "a")
    assert answer.exit_code == 1
    assert json.loads(answer.stdout, parse_constant=pytest.fail) == {
        "file": "a/1.jpg",
        "error": "the network answers with NaN or infinity",
    }


def test_help_shows_defaults_in_brackets() -> None:
    text = CliRunner().invoke(gamma, ["detect", "--help"], env={"COLUMNS": "200"}).output
    assert "[default: auto]" in text
