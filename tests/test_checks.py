"""The pre-commit hooks run the same checks as the gate."""

import re
from pathlib import Path

from pre_commit.clientlib import load_config

ROOT = Path(__file__).parents[1]


def test_hooks_are_valid_and_the_gate_runs_their_commands() -> None:
    (local,) = load_config(ROOT / ".pre-commit-config.yaml")["repos"]
    gate = (ROOT / ".ci/run").read_text()
    commands = [hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]]
    assert commands == ["ruff check", "ruff format", "mypy", "npm run --silent check"]
    for command in commands:
        assert re.search(rf"^  {command}\b", gate, re.MULTILINE), command
