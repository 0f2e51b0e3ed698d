"""Generate `models.py` from docs/openapi.json and the synchronous client from the asynchronous one.

    python clients/python/generate.py

It needs the test dependencies of the project. A test compares its output with the files.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = HERE / "gamma_client"
DOCUMENT = HERE.parents[1] / "docs" / "openapi.json"
BY_HAND = "runtime.py"  # of both clients

HEADER = '"""Answers of the service, generated from its OpenAPI document by generate.py."""\n'
OPTIONS = (
    *("--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel"),
    *("--target-python-version", "3.11", "--use-standard-collections", "--use-union-operator"),
    *("--use-annotated", "--use-schema-description", "--use-field-description"),
    *("--enum-field-as-literal", "all", "--strict-nullable", "--use-type-alias"),
    *("--disable-timestamp", "--formatters", "builtin"),
)
BOUNDS = {"pattern", "minimum", "maximum", "minLength", "maxLength", "exclusiveMinimum"}

WORDS = (  # asynchronous, synchronous
    (r"\b(?:async|await) ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\benter_async_context\b", "enter_context"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\ba(close|read|iter_)", r"\1"),
    (r"\b_async\b", "_sync"),
)


def main() -> None:
    """Write all generated files."""
    for path, text in generated():
        path.write_text(text)


def generated() -> Iterator[tuple[Path, str]]:
    """Path and text of each generated file."""
    yield PACKAGE / "models.py", _formatted(_models())
    for source in sorted((PACKAGE / "_async").glob("*.py")):
        if source.name != BY_HAND:
            text = source.read_text()
            for asynchronous, synchronous in WORDS:
                text = re.sub(asynchronous, synchronous, text)
            note = f"# Generated from _async/{source.name} by generate.py.\n"
            yield PACKAGE / "_sync" / source.name, _formatted(note + text)


def _models() -> str:
    with tempfile.TemporaryDirectory() as folder:
        document, models = Path(folder, "openapi.json"), Path(folder, "models.py")
        document.write_text(json.dumps(_answers(json.loads(DOCUMENT.read_text()))))
        subprocess.run(
            [
                *(sys.executable, "-m", "datamodel_code_generator", *OPTIONS),
                *("--input", document, "--output", models),
            ],
            check=True,
        )
        _, _, code = models.read_text().partition("\nfrom __future__")
    code = re.sub(r'"""\n\s*(.*?)\n\s*"""', r'"""\1"""', code, flags=re.DOTALL)
    return f"{HEADER}\nfrom __future__{code}"


def _answers(document: dict[str, Any]) -> dict[str, Any]:
    """The part of the document that describes answers and webhooks, with open lists of values."""
    schemas = {
        name.removesuffix("-Output"): _loosened(schema)
        for name, schema in document["components"]["schemas"].items()
        if not name.endswith("-Input")
    }
    successes = [
        content["schema"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for answer in operation["responses"].values()
        for content in answer.get("content", {}).values()
        if "schema" in content
    ]
    wanted, found = [_names(_loosened([successes, document.get("webhooks", {})]))], set[str]()
    while wanted:
        new = wanted.pop() - found
        found |= new
        wanted.extend(_names(schemas[name]) for name in new)
    return {
        "openapi": document["openapi"],
        "info": document["info"],
        "paths": {},
        "components": {"schemas": {name: schemas[name] for name in sorted(found)}},
    }


def _names(part: Any) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(part)))


def _loosened(part: Any) -> Any:
    """Without titles and bounds; later versions of the service may add values to any list."""
    if isinstance(part, list):
        return [_loosened(one) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part and isinstance(part["$ref"], str):
        part = {**part, "$ref": re.sub("-(?:Input|Output)$", "", part["$ref"])}
    loosened = {
        name: {field: _loosened(schema) for field, schema in inner.items()}
        if name == "properties"
        else _loosened(inner)
        for name, inner in part.items()
        if name not in BOUNDS and (name != "title" or not isinstance(inner, str))
    }
    if "enum" in loosened:
        values = {"type": loosened.pop("type"), "enum": loosened.pop("enum")}
        loosened["anyOf"] = [values, {"type": values["type"]}]
    return loosened


def _formatted(code: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", PACKAGE / "x.py", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
