"""Commands of the documentation: a test runs them, or they need an engine or an account."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from app.command.cli import app as gamma
from tests.docs.files import PAGES, ROOT
from training.cli import app as gamma_train

ELSEWHERE = {"docker", "kubectl", "aws"}
"""They need an engine, a cluster or an account; tests/deploy/ compares what they name."""
RUN = {
    # The first words of a command: what runs it or, for an installation, the gate.
    "python3 -m venv": ".ci/run",
    ".venv/bin/pip install -c constraints.txt -e '.[test]'": ".ci/run",
    "pip install -c constraints.txt": ".ci/run",
    "pip install ./clients/python": ".ci/run",
    ". .venv/bin/activate": ".ci/run",
    "npm ci": ".ci/run",
    "npm install openapi-fetch": "package.json",
    "npx openapi-typescript openapi.json": "package.json",
    "npm run client": ".ci/run",
    "node clients/typescript/example.mts": "tests/clients/test_live.py",
    "python clients/python/generate.py": "tests/clients/test_generated.py",
    "pre-commit install": ".pre-commit-config.yaml",
    "pytest": ".ci/run",
    "ruff check": ".ci/run",
    "sh deploy/make-secrets.sh": "tests/deploy/test_compose.py",
    "helm install": "tests/deploy/test_helm.py",
    "helm upgrade": "tests/deploy/test_helm.py",
    "(printf 'apiVersion": "tests/deploy/test_kubernetes.py",
    "curl -s -F file=@docs/images/example.jpg": "tests/docs/test_readme.py",
}
PAGES_RUN = {"docs/integrate.md": "tests/app/test_integrate.py"}
SHELL = {"export", "secret=$(openssl", "mkdir", "jq", "curl"}
"""Of the system; tests/app/test_integrate.py runs the same with other names."""


def commands() -> list[tuple[str, str]]:
    """Page and command of every prompt."""
    return [
        (page, line.removeprefix("$ "))
        for page, text in PAGES.items()
        for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_every_command_is_run_or_needs_an_engine() -> None:
    assert len(commands()) > 50
    for page, command in commands():
        tests = [where for start, where in RUN.items() if command.startswith(start)]
        tests += [where for name, where in PAGES_RUN.items() if name == page]
        assert all((ROOT / where).exists() for where in tests)
        parsed = re.search(r"\bgamma(-train)? ", command) is not None
        first = command.split()[0]
        assert tests or parsed or first in ELSEWHERE | SHELL, (page, command)


OURS = [
    words[0]
    for _, command in commands()
    if (words := re.findall(r"(?:^|&& )(gamma(?:-train)? [^|>&]+)", command))
]


@pytest.mark.parametrize("command", OURS)
def test_commands_of_the_package_exist_with_their_options(command: str) -> None:
    name, *words = shlex.split(command)
    found = get_command(gamma if name == "gamma" else gamma_train)
    while isinstance(found, TyperGroup):
        context = typer.Context(found, info_name=name)
        _, sub, words = found.resolve_command(context, words)
        assert sub is not None, command
        found = sub
    try:
        found.make_context(name, words)
    except typer.BadParameter as error:  # a file that only the reader has
        if "does not exist" not in str(error):
            raise
