"""docs/integrate.md: every command does what the page says, against a whole service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.problems import STATUS
from tests.app.receiver import Receiver, wait_for
from tests.conftest import Serve, encode, photo, require_program
from tests.deploy.live import small_checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "integrate.md").read_text()
BLOCKS = [
    re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PICTURES = 13


def shell(commands: list[str], folder: Path, **environment: str) -> str:
    """What the commands print, one after the other in one shell; the first failure ends it."""
    done = subprocess.run(
        [require_program("bash"), "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("integrate")
    for number, name in enumerate(("photo", "second", "third")):
        (made / f"{name}.jpg").write_bytes(encode(photo(64, 64, number)))
    (made / "notes.txt").write_text("no picture")
    return made


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """What the first block sets."""
    *exports, last = BLOCKS[0]
    assert last == "gamma serve"
    lines = shell([*exports, "env"], folder).splitlines()
    return dict(line.split("=", 1) for line in lines if line.startswith("GAMMA_"))


@pytest.fixture(scope="module")
def service(folder: Path, environment: dict[str, str]) -> Iterator[Serve]:
    running = Serve(
        folder / "data",
        *("--checkpoint", str(small_checkpoint(folder / "model")), "--device", "cpu"),
        **environment,
        GAMMA_RATE_LIMIT="20/minute",
        GAMMA_WEBHOOK_ALLOW="127.0.0.1",
    )
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


def test_commands(
    service: Serve, folder: Path, environment: dict[str, str], receiver: Receiver
) -> None:
    (_, address, one, location, masks, many, twice, told, refused) = BLOCKS
    # What stands for the reader's own machines is all that is replaced.
    set_address = address[0].replace("http://127.0.0.1:8000", service.url)
    assert set_address != address[0]
    told = [told[0].replace("https://hooks.example.com/gamma", f"{receiver.url}/gamma")]

    def run(*commands: str) -> str:
        return shell([set_address, *commands], folder, **environment)

    ready, model = run(address[1], "echo", address[2]).splitlines()
    assert json.loads(ready)["workers"] == 1
    assert json.loads(model)["version"] == "small"
    assert json.loads(run(*one))["status"] == "succeeded"

    *_, unchanged = run(*location, *masks).splitlines()
    assert unchanged == "304"
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "succeeded"
    assert record["ref_id"] == json.loads((folder / "queued.json").read_text())["ref_id"]
    for name in ("mask.png", "report.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG"), name
    assert not (folder / "unchanged.png").exists() or not (folder / "unchanged.png").read_bytes()

    batch, listed = run(many[0], "echo", many[1]).splitlines()
    assert [entry["status"] for entry in json.loads(batch)["results"]][2] == 415
    assert {"a", "b", "upload-8812"} <= {d["ref_id"] for d in json.loads(listed)["detections"]}

    first, again = run(twice[0], "echo", twice[1]).splitlines()
    assert json.loads(first)["id"] == json.loads(again)["id"]

    accepted = json.loads(run(*told))
    wait_for(lambda: receiver.at("/gamma"))
    assert receiver.at("/gamma")[0].event["detection"]["id"] == accepted["id"]

    problem = json.loads(run(*refused))
    assert (problem["code"], problem["request_id"]) == ("not_an_image", "upload-8814")


def test_program(service: Serve, folder: Path, environment: dict[str, str]) -> None:
    """More pictures than the rate limit lets through at once, and a file that is none."""
    uploads = folder / "uploads"
    uploads.mkdir()
    for number in range(PICTURES):
        picture = encode(photo(32, 32, 100 + number), "PNG")
        (uploads / f"{number}.png").write_bytes(picture)
    (uploads / "notes.txt").write_text("no picture")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(uploads)],
        env={**environment, "GAMMA": service.url},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    expected = [f"{number}.png succeeded uncertain" for number in range(PICTURES)]
    assert lines == sorted([*expected, "notes.txt refused: not_an_image"])


def test_table_has_every_error() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| \S", PAGE, re.MULTILINE)
    assert rows == [(code.value, str(status)) for code, (status, _) in STATUS.items()]
