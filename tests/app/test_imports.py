"""Allowed imports between packages; the API needs no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "worker", "model", "pictures", "training")

# What each package may import of the others, at module level.
WALLS = {
    "app.contract": ("pictures.findings", "pictures.origin"),
    "app.webhooks": ("app.contract",),
    "app.reviews": ("app.contract", "pictures.findings"),
    "app.http": ("app.contract", "app.reviews", "app.webhooks", "pictures"),
    "app.command": ("app.contract", "app.reviews", "app.webhooks", "app.http", "pictures"),
    "worker": ("app.contract", "model", "pictures"),
    "model": ("pictures",),
    "pictures": (),
    "training": ("model", "pictures"),
}


def module_level_imports(file: Path) -> set[str]:
    """Names of our own modules that a file imports outside functions."""
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(file.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))
    return {name for name in names if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("package", WALLS)
def test_packages_import_allowed_packages_only(package: str) -> None:
    files = list((ROOT / package.replace(".", "/")).rglob("*.py"))
    assert files
    for file in files:
        for name in module_level_imports(file):
            allowed = any(f"{name}.".startswith(f"{a}.") for a in (package, *WALLS[package]))
            assert allowed, f"{file.relative_to(ROOT)} may not import {name}"


def test_every_package_of_app_has_a_rule() -> None:
    packages = {f"app.{file.parent.name}" for file in (ROOT / "app").glob("*/__init__.py")}
    assert packages == {name for name in WALLS if name.startswith("app.")}
    assert {file.name for file in (ROOT / "app").glob("*.py")} == {"__init__.py", "__main__.py"}


def test_only_ports_sends_requests_to_the_service() -> None:
    """`app.contract.ports` knows no proxies of the environment, as other clients do unless told."""
    asking = re.compile(
        r"httpx2\.(?:get|post|request|stream|Client|AsyncClient)\("
        r"|^ *(?:import|from) (?:httpx|requests|urllib\.request|http\.client)\b",
        re.MULTILINE,
    )
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if asking.search(file.read_text())}
    assert found == {"app/contract/ports.py"}


def test_app_never_imports_torch() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "app").rglob("*.py")
        if file.name not in ("__init__.py", "__main__.py", "env.py")  # env.py: by Alembic only
    ]
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers', 'scipy', 'worker', 'model'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_no_decoder_runs_in_the_api() -> None:
    program = (
        "import sys, app.http.server, app.webhooks.worker\n"
        "found = {'PIL', 'pi_heif', '_pi_heif', 'pictures.decoding'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_gamma_serve_does_not_load_the_api() -> None:
    program = (
        "import sys\nfrom app.command.cli import app\n"
        "code = app(['serve', '--host', '0.0.0.0'], standalone_mode=False)\n"
        "assert code == 1\n"
        "found = {'fastapi', 'sqlalchemy', 'uvicorn'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
