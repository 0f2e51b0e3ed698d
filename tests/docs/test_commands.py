"""Commands of the documentation: a test runs them, or they need an engine or an account."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from app.command.cli import app as gamma
from app.http.api import documented
from tests.docs.files import PAGES, ROOT
from training.cli import app as gamma_train

ELSEWHERE = {"docker", "kubectl", "aws", "createdb"}
"""They need an engine, a cluster, an account or a server; tests/deploy/ compares what they name."""
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
"""Of the system. What `curl` calls is compared with the OpenAPI document."""


_BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"\w+=\S*$|#|$")  # a variable, a comment, an empty line


def commands() -> list[tuple[str, str]]:
    """Page and command of every prompt, and of every line of a shell script."""
    found = []
    for page, text in PAGES.items():
        for language, block in _BLOCK.findall(text):
            lines = block.replace("\\\n", "").splitlines()
            prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            found += [(page, line) for line in (prompts if language == "console" else lines)]
    return [(page, line) for page, line in found if not _SETTING.match(line)]


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


CALLS = [
    (command, *found)
    for _, command in commands()
    for found in re.findall(r"(?:\$GAMMA|:8000)(/v1/[^\s\"?]*)\??([^\s\"]*)", command)
]


@cache
def calls() -> dict[str, Any]:
    return documented().openapi()["paths"]


@pytest.mark.parametrize(("command", "path", "query"), CALLS)
def test_calls_by_curl_are_documented(command: str, path: str, query: str) -> None:
    method = "post" if " -F " in command or "-X POST" in command else "get"
    (operation,) = [
        operations[method]
        for known, operations in calls().items()
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path) and method in operations
    ][:1]
    names = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    assert {pair.partition("=")[0] for pair in query.split("&") if pair} <= names


def test_calls_were_found() -> None:
    assert len(CALLS) > 4
