"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ByteSize

from app.schemas import Detection
from app.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_settings_table() -> None:
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, ByteSize):
            default = default.human_readable()
        shown = "—" if default is None else f"`{default}`"
        rows.append(f"| `GAMMA_{name.upper()}` | {shown} | {field.description} |")
    table = re.findall(r"^\| `GAMMA_.*$", README, re.MULTILINE)
    assert table == rows


def test_first_two_commands_are_single_lines() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    assert all(block.count("\n") == 1 for block in blocks)
    assert "gamma serve" in blocks[0]
    assert "pytest" in blocks[1]


def test_example_answer_is_a_record() -> None:
    (answer,) = re.findall(r"^\$ curl .*\n(\{.*\})$", README, re.MULTILINE)
    assert Detection.model_validate_json(answer).status == "succeeded"


def test_every_mentioned_folder_exists() -> None:
    for folder in re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE):
        assert (Path(__file__).parents[1] / folder).is_dir(), folder
