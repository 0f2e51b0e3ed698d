"""Benchmarks and tests do not import each other."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def imports(file: Path) -> set[str]:
    """Top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("folder", "forbidden"), [("benchmarks", {"tests", "pytest"}), ("tests", {"benchmarks"})]
)
def test_benchmarks_and_tests_are_apart(folder: str, forbidden: set[str]) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert len(files) > 5
    for file in files:
        assert not imports(file) & forbidden, file


@pytest.mark.parametrize("name", ["capacity", "support", "worker"])
def test_the_benchmark_of_capacity_needs_no_package_of_the_tests(name: str) -> None:
    """It runs from the install that the README gives to users."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    tests = {Requirement(line).name for line in extras["test"]}
    assert {"psutil", "pytest"} <= tests
    tree = ast.parse((ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8"))
    first = {
        alias.name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        node.module.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert not first & tests
