"""The units for machines without containers fit Compose and the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from app.contract.settings import SECRETS_VARIABLE, Settings
from tests.deploy.files import ROOT, compose, with_defaults

FOLDER = ROOT / "deploy/systemd"
PROGRAMS = ("api", "worker", "webhooks")


def section(file: Path) -> dict[str, str]:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(file)
    return dict(parser["Service"])


def limits(program: str) -> dict[str, str]:
    return section(FOLDER / f"gamma@{program}.service.d/gamma.conf")


def test_variables_are_settings() -> None:
    known = {f"GAMMA_{name.upper()}" for name in Settings.model_fields} | {SECRETS_VARIABLE}
    text = "".join(file.read_text() for file in FOLDER.rglob("*") if file.is_file())
    assert set(re.findall(r"(GAMMA_\w+)=", text)) <= known


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_gets_the_secrets_that_its_compose_service_gets(program: str) -> None:
    files = [FOLDER / "gamma@.service", FOLDER / f"gamma@{program}.service.d/gamma.conf"]
    text = "".join(file.read_text() for file in files)
    assert (
        re.findall(r"^LoadCredential=(\w+):", text, re.M)
        == compose()["services"][program]["secrets"]
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_limits_are_those_of_compose(program: str) -> None:
    service = compose()["services"][program]
    memory = with_defaults(service["mem_limit"])
    assert limits(program)["MemoryMax"] == memory.upper()
    grace = with_defaults(service["stop_grace_period"])
    assert f"{limits(program)['TimeoutStopSec']}s" == grace
    assert {"CPUQuota", "CPUWeight"} & set(limits(program))


def test_units_are_valid(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    for program in PROGRAMS:
        unit = tmp_path / f"gamma@{program}.service"
        unit.write_text(
            (FOLDER / "gamma@.service").read_text().replace("/opt/gamma/bin/gamma", "/bin/sh")
        )
        found = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert unit.name not in found.stderr, found.stderr
