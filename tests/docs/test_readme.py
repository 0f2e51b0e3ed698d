"""The README says what the code does."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest

from tests.conftest import Serve
from tests.docs.files import PAGES, ROOT, blocks

TOLERANCE = 0.05  # of probabilities, between devices and precisions
(REQUEST,) = (block for block in blocks("README.md", "console") if "curl" in block)


@pytest.fixture(scope="module")
def service(shipped_service: Serve) -> Serve:
    return shipped_service


def test_first_two_commands_are_single_lines() -> None:
    found = blocks("README.md", "sh")
    assert len(found) == 2
    assert all(block.count("\n") == 1 for block in found)
    assert "gamma serve" in found[0]
    assert "pytest" in found[1]


def test_the_example_is_what_the_service_answers(client: httpx2.Client) -> None:
    command, answer = REQUEST.split("\n", 1)
    (picture,) = re.findall(r"-F file=@(\S+)", command)
    real = client.post(
        "/v1/detections",
        files={"file": (ROOT / picture).read_bytes()},
        headers={"Prefer": "wait=60"},
    ).json()
    check(json.loads(answer), real)
    assert answer.count("\n") == 8


def check(shown: Any, real: Any) -> None:
    """Assert that a shortened answer is part of the real one, with numbers rounded."""
    if isinstance(shown, dict):
        assert shown.keys() <= real.keys()
        for name in shown:
            check(shown[name], real[name])
    elif isinstance(shown, list):
        assert len(shown) == len(real)
        for one, other in zip(shown, real, strict=True):
            check(one, other)
    elif isinstance(shown, float):
        assert shown == pytest.approx(real, abs=TOLERANCE)
    elif isinstance(shown, int) and not isinstance(shown, bool):
        assert shown == pytest.approx(real, abs=32)  # pixels of a box
    else:
        assert shown == real


def test_every_mentioned_folder_exists() -> None:
    folders = re.findall(r"^\| `(\w+)/` \|", PAGES["README.md"], re.MULTILINE)
    assert folders
    for folder in folders:
        assert (ROOT / folder).is_dir(), folder


def test_every_command_is_listed() -> None:
    from app.command.cli import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    rows = re.findall(r"^\| (`gamma .*?) \|", PAGES["README.md"], re.MULTILINE)
    assert set(re.findall(r"`gamma (\w+)", " ".join(rows))) == commands


def test_the_picture_of_the_page_is_small() -> None:
    """It is downloaded with the README."""
    (picture,) = re.findall(r"^!\[.*\]\((.*)\)$", PAGES["README.md"], re.MULTILINE)
    assert (ROOT / picture).stat().st_size < 200_000
