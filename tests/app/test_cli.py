"""The `gamma` commands."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from app.command.cli import app
from app.command.detect import _PRINTERS, Format
from app.command.embedded import private_redis
from model import checkpoint
from model.config import GammaConfig
from model.network import GammaModel
from tests.conftest import encode, free_port, photo
from tests.forks import gamma
from tests.provenance import PARAMETERS, with_text
from tests.writing import page_of_text

pytestmark = pytest.mark.slow

SECRET = "hush-hush-hush"


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def gamma_here(*arguments: str, cwd: Path, **environment: str) -> Ended:
    """Run a command in this process, which spares it the seconds that torch takes to load."""
    with contextlib.chdir(cwd):
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", **environment})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encode(photo(300, 200)))
    (folder / "b.png").write_bytes(encode(photo(140, 160), "PNG"))
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_nan_model_is_reported_and_json_stays_valid(pictures: Path, tmp_path: Path) -> None:
    model = GammaModel(GammaConfig(backbone="mit_b0", decoder_channels=32, crop_size=64))
    torch.nn.init.constant_(model.classifier.weight, torch.nan)
    checkpoint.save(model, tmp_path / "nan")
    environment = {"GAMMA_CHECKPOINT": str(tmp_path / "nan"), "GAMMA_DEVICE": "cpu"}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    answer = CliRunner().invoke(app, ["detect", str(pictures), "--json"], env=environment)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "NaN model" in answer.stderr
    answer = CliRunner().invoke(app, ["doctor", "--json"], env=environment)
    assert answer.exit_code == 1, answer.output
    findings = json.loads(answer.stdout, parse_constant=refuse)["findings"]
    (finding,) = (one for one in findings if one["subject"] == "model")
    assert finding["state"] == "wrong"
    assert finding["found"].startswith("NaN model")


def test_what_a_file_says_is_printed(tmp_path: Path, small_model: Path) -> None:
    (tmp_path / "made.png").write_bytes(with_text(parameters=PARAMETERS))
    given = ("detect", "made.png", "--view", "center", "--checkpoint", str(small_model))
    row = json.loads(gamma_here(*given, "--json", cwd=tmp_path).stdout)
    assert row["file_says"] == "generated"
    (said,) = row["provenance"]["statements"]
    assert (said["by"], said["details"]["model"]) == ("Stable Diffusion web UI", "dreamshaper_8")
    answer = gamma_here(*given, cwd=tmp_path, GAMMA_TRUST_LIST="absent.pem")
    assert answer.returncode == 1
    assert "GAMMA_TRUST_LIST" in answer.stderr


@pytest.mark.parametrize("output", [Format.TABLE, Format.CSV])
def test_what_a_file_says_has_a_column(output: Format, capsys: pytest.CaptureFixture[str]) -> None:
    _PRINTERS[output](iter([{"file": "a", "file_says": "composite"}]))
    printed = capsys.readouterr().out
    assert "file_says" in printed
    assert "composite" in printed


def test_notes_of_a_page_of_text(tmp_path: Path, small_model: Path) -> None:
    (tmp_path / "page.png").write_bytes(encode(page_of_text(600, 800, 14), "PNG"))
    given = ("detect", "page.png", "--view", "center", "--checkpoint", str(small_model))
    assert "mostly_text" in json.loads(gamma_here(*given, "--json", cwd=tmp_path).stdout)["notes"]


@pytest.mark.parametrize("output", [Format.TABLE, Format.CSV])
def test_notes_are_printed(output: Format, capsys: pytest.CaptureFixture[str]) -> None:
    notes = ["marks_contradict_score", "mostly_text"]
    _PRINTERS[output](iter([{"file": "a", "notes": notes}, {"file": "b", "error": "broken"}]))
    printed = capsys.readouterr().out
    assert all(note in printed for note in notes)
    assert "[" not in printed


def test_detect_json_with_overlays(pictures: Path, tmp_path: Path, small_model: Path) -> None:
    given = ("detect", "pictures", "--json", "--overlays", "out", "--checkpoint", str(small_model))
    answer = gamma(*given, cwd=tmp_path, COLUMNS="200")
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


def test_detect_csv_continues_after_a_bad_file(
    pictures: Path, tmp_path: Path, small_model: Path
) -> None:
    notes = str(pictures / "notes.txt")
    given = ("detect", notes, "pictures/b.png", "--csv", "--view", "center")
    answer = gamma_here(*given, "--checkpoint", str(small_model), cwd=tmp_path)
    assert answer.returncode == 1
    rows = list(csv.DictReader(io.StringIO(answer.stdout)))
    assert rows[0]["error"]
    assert not rows[0]["ai_probability"]
    assert not rows[1]["error"]
    assert rows[1]["verdict"] in ("authentic", "uncertain", "ai_generated")


def test_doctor(tmp_path: Path) -> None:
    answer = gamma_here("doctor", cwd=tmp_path, GAMMA_API_KEYS="alice=hush-hush-hush-hush")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "valkey-server" in answer.stdout
    assert "gamma-mit-b0" in answer.stdout
    assert "64 megapixels" in answer.stdout
    assert "alice" in answer.stdout
    assert "hush" not in answer.stdout + answer.stderr


def test_doctor_reports_redis_problems(tmp_path: Path, small_model: Path) -> None:
    model = {"GAMMA_CHECKPOINT": str(small_model)}
    away = gamma_here("doctor", cwd=tmp_path, GAMMA_REDIS_URL="redis://127.0.0.1:1/0", **model)
    assert away.returncode == 1
    assert "does not answer" in away.stdout
    with private_redis(tmp_path / "redis", 2**26) as (url, _):
        fine = gamma_here("doctor", cwd=tmp_path, GAMMA_REDIS_URL=url, **model)
        assert fine.returncode == 0, fine.stdout
        assert "append-only file on" in fine.stdout


def test_invalid_setting_prints_one_line(tmp_path: Path) -> None:
    answer = gamma("api", cwd=tmp_path, GAMMA_PORT="many")
    assert answer.returncode == 2
    assert "setting port" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_api_and_worker_need_a_redis_url(tmp_path: Path) -> None:
    ports = {"GAMMA_PORT": str(free_port()), "GAMMA_METRICS_PORT": str(free_port())}
    for command in ("api", "worker"):
        answer = gamma_here(command, cwd=tmp_path, **ports)
        assert answer.returncode == 1
        assert "GAMMA_REDIS_URL" in answer.stderr


def test_missing_checkpoint_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode(photo(64, 64)))
    answer = gamma_here("detect", ".", "--checkpoint", "/no/such/model", cwd=tmp_path)
    assert answer.returncode == 1
    assert "/no/such/model" in answer.stderr


_BAD_URLS = [
    SECRET,
    f"http://:{SECRET}@localhost:6379/0",
    f"redis://:pass@localhost:{SECRET}/0",
    f"redis://:{SECRET}@[::1/0",
    f"redis://:{SECRET}@localhost/one",
    f"redis://:{SECRET}@localhost/0?bogus=1",
    f"redis://:{SECRET}@localhost/0?socket_timeout=soon",
    f"rediss://:{SECRET}@localhost/0?ssl_cert_reqs=bogus",
    f"unix://{SECRET}",
]


@pytest.mark.parametrize("url", _BAD_URLS)
def test_invalid_redis_url_prints_one_line_without_the_url(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAMMA_REDIS_URL", url)
    result = CliRunner().invoke(app, ["api"])
    assert result.exit_code == 2
    assert "setting redis_url" in result.output
    assert "redis://:PASSWORD@HOST:6379/0" in result.output
    assert SECRET not in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("command", ["serve", "api", "worker", "webhooks", "doctor"])
def test_no_command_starts_with_a_bad_url(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMA_REDIS_URL", _BAD_URLS[2])
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 2
    assert "setting redis_url" in result.output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"GAMMA_CONFIG": "absent.toml"}, "GAMMA_CONFIG is not a file: absent.toml"),
        ({"GAMMA_CONFIG": "."}, "GAMMA_CONFIG is not a file: ."),
        ({"GAMMA_CONFIG": "broken.toml"}, "broken.toml is not TOML: "),
        ({"GAMMA_CONFIG": "binary.toml"}, "a settings file cannot be read: "),
        ({"GAMMA_SECRETS_DIR": "absent"}, "GAMMA_SECRETS_DIR is not a folder: absent"),
        ({"GAMMA_SECRETS_DIR": "broken.toml"}, "GAMMA_SECRETS_DIR is not a folder: broken.toml"),
        ({"GAMMA_SECRETS_DIR": "secrets"}, "a settings file cannot be read: "),
        ({"GAMMA_STORE": "s3://UPPER"}, "s3://[a-z0-9]"),
    ],
)
def test_unreadable_settings_print_one_line(
    setting: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text(f'api_keys = "{SECRET}')
    (tmp_path / "binary.toml").write_bytes(b"\xff" + SECRET.encode())
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "gamma_api_keys").write_bytes(b"\xff" + SECRET.encode())
    for name, given in setting.items():
        monkeypatch.setenv(name, given)
    result = CliRunner().invoke(app, ["api"])
    assert result.exit_code == 2
    assert message in result.output
    assert SECRET not in result.output
    assert len(result.output.splitlines()) == 1


def test_unusable_data_folder_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        answer = gamma("serve", "--data-dir", str(folder), cwd=tmp_path, COLUMNS="200")
        assert answer.returncode == 1
        assert f"{folder} cannot be used" in answer.stderr
        assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("command", ["serve", "api", "worker", "webhooks", "doctor", "detect"])
def test_misspelt_setting_ends_every_command(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("gamma.toml").write_text("max_bach = 1\n")
    arguments = [command, "gamma.toml"] if command == "detect" else [command]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 2
    assert "max_bach: unknown setting; did you mean max_batch?" in answer.stderr
    answer = CliRunner().invoke(app, arguments, env={"GAMMA_QUEUE_LIMT": "7"})
    assert answer.exit_code == 2
    assert "GAMMA_QUEUE_LIMT is not a setting; did you mean GAMMA_QUEUE_LIMIT?" in answer.stderr
