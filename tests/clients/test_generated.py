"""The client fits the service: generated parts are current, and every call has a method."""

from __future__ import annotations

import importlib.util
import json
import tomllib

from tests.docs.files import ROOT

PYTHON = ROOT / "clients" / "python"


def test_generated_files_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate", PYTHON / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generated = dict(generate.generated())
    assert len(generated) == 7
    for path, text in generated.items():
        assert path.read_text() == text, f"{path.name}: run python clients/python/generate.py"


def test_versions_are_those_of_the_project() -> None:
    versions = [
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
        for folder in (ROOT, PYTHON)
    ]
    assert versions[0] == versions[1]


def test_licence_is_that_of_the_project() -> None:
    assert (PYTHON / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_what_the_client_needs_is_in_the_test_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {*project["dependencies"], *project["optional-dependencies"]["test"]}
    own = tomllib.loads((PYTHON / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(own) <= ours


def test_every_call_has_a_method() -> None:
    """Except those of operators."""
    written = "\n".join(file.read_text() for file in PYTHON.glob("gamma_client/**/*.py"))
    below = "/v1/detections/{detection_id}"
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    for path in paths.keys() - {"/livez", "/readyz", below}:
        parts = path.removeprefix(f"{below}/").split("/") if below in path else [path]
        shown = ", ".join(f'f"{part}"' if "{" in part else f'"{part}"' for part in parts)
        assert shown in written, path
