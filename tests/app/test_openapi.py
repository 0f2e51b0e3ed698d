"""The OpenAPI document: valid, current, and matched by the running service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from app.contract.client import connect
from app.contract.schemas import ErrorCode
from app.http.api import documented
from app.http.problems import STATUS
from pictures.header import MEDIA_TYPES
from tests.app.conftest import KEYS, StandIn, new_picture, post
from tests.app.replica import Replica

CHECKED_IN = Path(__file__).parents[2] / "docs" / "openapi.json"
# Answers to what is no operation.
NO_OPERATION_HAS_IT = {
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.HEAD_TOO_LARGE,
    ErrorCode.TOO_MANY_CONNECTIONS,
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return documented().openapi()


def answers(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Operation, status and description of each documented answer."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                yield operation["operationId"], status, answer


def test_summaries_are_sentences() -> None:
    """Not the names of functions, such as `Read List`."""
    paths = documented().openapi()["paths"]
    summaries = [operation["summary"] for item in paths.values() for operation in item.values()]
    assert len(set(summaries)) == len(summaries)
    for summary in summaries:
        assert len(summary.split()) >= 3, summary
        assert not summary.endswith("."), summary


def test_checked_in_document_is_current(document: dict[str, Any]) -> None:
    assert json.loads(CHECKED_IN.read_text()) == document, (
        "the API has changed; run: gamma openapi > docs/openapi.json"
    )


def test_document_is_valid(document: dict[str, Any]) -> None:
    from openapi_spec_validator import validate  # not above: it takes seconds to import

    validate(document)


def test_every_answer_has_examples_that_fit(document: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator  # not above: it takes seconds to import

    for operation, status, answer in answers(document):
        for media_type, content in answer.get("content", {}).items():
            if not media_type.endswith("json"):
                continue
            assert content["examples"], (operation, status)
            schema = {**content["schema"], "components": document["components"]}
            validator = Draft202012Validator(schema)
            for name, example in content["examples"].items():
                errors = [error.message for error in validator.iter_errors(example["value"])]
                assert not errors, (operation, status, name, errors)


def test_every_error_code_is_an_example_of_its_status(document: dict[str, Any]) -> None:
    seen = set()
    for _, status, answer in answers(document):
        content = answer.get("content", {}).get("application/problem+json", {})
        for name, example in content.get("examples", {}).items():
            code = ErrorCode(name)
            assert STATUS[code][0] == int(status) == example["value"]["status"]
            assert example["value"]["code"] == code
            seen.add(code)
    assert seen == set(ErrorCode) - NO_OPERATION_HAS_IT


# -- the running service --------------------------------------------------------------------------

PICTURES = [new_picture() for _ in range(4)]
EXAMPLES = 12  # of each operation, good and bad
SEED = 1

# Whether a picture or a webhook is accepted is more than a schema can say; and every value of a
# form is a string, so that none is of the wrong type.
UNKNOWABLE = [positive_data_acceptance, negative_data_rejection]

schemathesis.openapi.format("binary", st.sampled_from([*PICTURES, b"", b"GIF89a", b"no picture"]))
schemathesis.serializer.alias(
    [kind for kind in MEDIA_TYPES.values() if kind not in ("image/png", "image/jpeg")],
    "application/octet-stream",
)
DESCRIBED = schemathesis.openapi.from_dict(
    documented().openapi(), config=schemathesis.Config(seed=SEED)
)


@pytest.fixture(scope="module")
def known(pair: list[Replica], pair_redis_url: str) -> list[str]:
    """Detections of alice's: two with a result, one that failed, one that waits."""
    with pair[0].client(KEYS["alice"]) as alice, connect(pair_redis_url) as redis:
        standin = StandIn(redis)
        names = [post(alice).json()["id"] for _ in range(4)]
        for name in names[:2]:
            assert standin.finish(name)
        standin.fail(names[2])
    return names


@DESCRIBED.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_service_matches_the_document(
    case: schemathesis.Case, pair: list[Replica], known: list[str]
) -> None:
    """Whatever is sent, the answer is a documented one, and never a failure of the service."""
    good = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if good and "detection_id" in case.path_parameters and case.method != "DELETE":
        one_more = len(case.path_parameters["detection_id"]) % (len(known) + 1)
        case.path_parameters["detection_id"] = [*known, "unknown"][one_more]
    if good and "ids" in case.query:  # goes with no other, which a schema cannot say
        case.query = {"ids": case.query["ids"]}
    if "Prefer" in case.headers or case.path == "/v1/events":
        case.headers["Prefer"] = "wait=0"  # no worker is there to end the longer waits
    many = case.method == "DELETE" and case.path == "/v1/detections"
    if many:
        case.query = {**case.query, "dry_run": "true"}  # the other cases need the detections
    vague = many or case.method == "POST" or "ids" in case.query
    case.call_and_validate(
        base_url=pair[0].url,
        headers={"Authorization": f"Bearer {KEYS['alice']}"},
        # In a query a number is a name like any other.
        excluded_checks=UNKNOWABLE if vague else [],
        timeout=280,
    )
