"""`gamma detect` and `gamma doctor` as a user runs them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from app.embedded import private_redis
from tests.conftest import encode, photo


def gamma(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GAMMA_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**inherited, "COLUMNS": "200", **environment},
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encode(photo(300, 200)))
    (folder / "b.png").write_bytes(encode(photo(100, 120), "PNG"))
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_detect_json_with_overlays(pictures: Path, tmp_path: Path) -> None:
    answer = gamma("detect", "pictures", "--json", "--overlays", "out", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "untrained" not in answer.stderr
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["a.jpg", "b.png"]
    assert all(0 <= row["ai_probability"] <= 1 for row in rows)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "a.jpg.ai.png",
        "a.jpg.manipulation.png",
        "b.png.ai.png",
        "b.png.manipulation.png",
    }
    with Image.open(tmp_path / "out" / "a.jpg.ai.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGBA", (300, 200))


def test_detect_csv_goes_on_after_a_bad_file(pictures: Path, tmp_path: Path) -> None:
    notes = str(pictures / "notes.txt")
    answer = gamma("detect", notes, "pictures/b.png", "--csv", "--view", "center", cwd=tmp_path)
    assert answer.returncode == 1
    rows = list(csv.DictReader(io.StringIO(answer.stdout)))
    assert rows[0]["error"]
    assert not rows[0]["ai_probability"]
    assert not rows[1]["error"]
    assert rows[1]["verdict"] in ("authentic", "uncertain", "ai_generated")


def test_doctor(tmp_path: Path) -> None:
    answer = gamma("doctor", cwd=tmp_path, GAMMA_API_KEYS="alice=hush-hush-hush-hush")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "valkey-server" in answer.stdout
    assert "gamma-mit-b0" in answer.stdout
    assert "64 megapixels" in answer.stdout
    assert "alice" in answer.stdout
    assert "hush" not in answer.stdout + answer.stderr


def test_doctor_names_what_is_wrong_with_redis(tmp_path: Path) -> None:
    away = gamma("doctor", cwd=tmp_path, GAMMA_REDIS_URL="redis://127.0.0.1:1/0")
    assert away.returncode == 1
    assert "does not answer" in away.stdout
    with private_redis(tmp_path / "redis", 2**26) as (url, _):
        fine = gamma("doctor", cwd=tmp_path, GAMMA_REDIS_URL=url)
        assert fine.returncode == 0, fine.stdout
        assert "append-only file on" in fine.stdout


def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    answer = gamma("api", cwd=tmp_path, GAMMA_PORT="many")
    assert answer.returncode == 2
    assert "setting port" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_api_and_worker_need_a_redis_url(tmp_path: Path) -> None:
    for command in ("api", "worker"):
        answer = gamma(command, cwd=tmp_path)
        assert answer.returncode == 1
        assert "GAMMA_REDIS_URL" in answer.stderr
        assert "Traceback" not in answer.stderr


def test_a_missing_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    answer = gamma("detect", ".", "--checkpoint", "/no/such/model", cwd=tmp_path)
    assert answer.returncode == 1
    assert "/no/such/model" in answer.stderr
    assert "Traceback" not in answer.stderr
