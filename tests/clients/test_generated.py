"""The client fits the service: generated parts are current, and every call has a method."""

from __future__ import annotations

import importlib.util
import inspect
import json
import tomllib

from gamma_client import Client
from gamma_client._sync.reviews import Reviews
from gamma_client._sync.webhooks import Webhooks
from gamma_client.calls import Conditions

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


METHODS = {
    "create": Client.submit,
    "create_batch": Client.submit_batch,
    "delete_many": Client.delete_many,
    "read_list": Client.detections,
    "export": Client.export,
    "archive": Client.archive,
    "read": Client.wait,
    "delete": Client.delete,
    "events": Client.events,
    "image": Client.image,
    "mask": Client.mask,
    "overlay": Client.overlay,
    "report": Client.report,
    "read_review": Reviews.get,
    "review": Reviews.decide,
    "withdraw_review": Reviews.withdraw,
    "list_reviews": Reviews.list,
    "review_several": Reviews.decide_many,
    "take_next": Reviews.next,
    "list_assigned": Reviews.assigned,
    "take": Reviews.assign,
    "release": Reviews.release,
    "attempts": Webhooks.attempts,
    "replay": Webhooks.replay,
    "test": Webhooks.test,
    "model": Client.model,
    "usage": Client.usage,
}
"""Method of each operation; those that are missing here are for operators."""
NAMES = {
    # Of a parameter: that of the method.
    **{"file": "picture", "image": "picture", "files": "pictures", "ref_id": "ref_ids"},
    **{"Idempotency-Key": "idempotency_key", "last-event-id": "after", "If-Match": "seen"},
}
BY_ITSELF = {"Prefer", "If-None-Match", "limit", "cursor"}
ELSEWHERE = {"read_list": {"ids"}, "list_reviews": {"ids", "format"}}
"""Parameters that `get_many`, `reviews.get` and `reviews.export` have."""


def test_every_call_and_parameter_is_one_of_a_method() -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_text())
    operations = {
        operation["operationId"]: operation
        for item in document["paths"].values()
        for operation in item.values()
    }
    assert operations.keys() - METHODS.keys() == {"livez", "readyz"}
    for name, method in METHODS.items():
        known = {*inspect.signature(method).parameters, *Conditions.__annotations__}
        missing = {
            parameter
            for parameter in parameters(operations[name], document["components"]["schemas"])
            if not {parameter, NAMES.get(parameter)} & known
        }
        assert missing <= BY_ITSELF | ELSEWHERE.get(name, set()), name


def parameters(operation: dict, schemas: dict) -> set[str]:
    """Names of parameters, and of the fields of bodies."""
    found = {parameter["name"] for parameter in operation.get("parameters", [])}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        found |= schema.get("properties", {}).keys()
    return found
