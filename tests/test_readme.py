"""The README says what the code does."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from pydantic import ByteSize

from app.api import documented
from app.schemas import Detection
from app.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, Settings
from app.webhooks.signing import SigningSecrets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"event": "detection.finished"}'


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


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/privacy.md"])
def test_a_page_names_settings_that_there_are(page: str) -> None:
    named = set(re.findall(r"GAMMA_[A-Z_]+", (ROOT / page).read_text()))
    known = {f"GAMMA_{name.upper()}" for name in Settings.model_fields}
    assert named
    assert named <= known | {CONFIG_VARIABLE, SECRETS_VARIABLE}


def test_first_two_commands_are_single_lines() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    assert all(block.count("\n") == 1 for block in blocks)
    assert "gamma serve" in blocks[0]
    assert "pytest" in blocks[1]


def test_example_answer_is_a_record() -> None:
    (answer,) = re.findall(r"^\$ curl .*\n(\{.*\})$", README, re.MULTILINE)
    assert Detection.model_validate_json(answer).status == "succeeded"


def test_table_of_calls_has_every_call() -> None:
    rows = re.findall(r"^\| (`(?:GET|POST|DELETE) /.*?) \|", README, re.MULTILINE)
    table = {call for row in rows for call in re.findall(r"`(.*?)`", row)}
    document = {
        f"{method.upper()} {path}"
        for path, operations in documented().openapi()["paths"].items()
        for method in operations
    }
    names = {"{id}": "{detection_id}", "{ai,manipulation}": "{head}"}
    for shown, name in names.items():
        table = {call.replace(shown, name) for call in table}
    assert table == document | {"GET /docs", "GET /"}


def test_every_form_field_is_mentioned() -> None:
    (line,) = re.findall(r"^Form fields beside `file`: .*$", README, re.MULTILINE)
    body = documented().openapi()["paths"]["/v1/detections"]["post"]["requestBody"]
    fields = set(body["content"]["multipart/form-data"]["schema"]["properties"]) - {"file"}
    assert fields == {"ref_id", "view", "webhook_url"}
    assert all(f"`{field}` (" in line for field in fields)


def verified(changes: dict[str, str | None]) -> object:
    """What the README's `verify` says of a genuine message with other headers; None: without."""
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(block, names)
    genuine = SigningSecrets.parse(SECRET).headers("msg_1", int(time.time()), BODY)
    headers = {name: sent for name, sent in {**genuine, **changes}.items() if sent is not None}
    return names["verify"](SECRET, headers, BODY)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("sent", [None, "", "é", "v1,é", "v1,\udce9", "v1,AAAA v2,\0", "1e3", "-1"])
def test_whatever_a_stranger_sends_is_not_genuine(name: str, sent: str | None) -> None:
    assert verified({}) is True
    assert verified({name: sent}) is False


def test_every_mentioned_folder_exists() -> None:
    for folder in re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE):
        assert (Path(__file__).parents[1] / folder).is_dir(), folder
