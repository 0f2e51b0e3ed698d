"""Checks of webhooks."""

from __future__ import annotations

import json
import time

import gamma_client
import pytest
from gamma_client import FinishedEvent, WebhookError, verify_webhook

from app.contract.signing import SigningSecrets
from app.http import examples
from app.webhooks import events

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SENT = events.FinishedEvent(
    id="msg_1", created_at=examples.SUCCEEDED.finished_at, detection=examples.SUCCEEDED
)
EVENT = SENT.model_dump(mode="json")
BODY = SENT.model_dump_json().encode()


def signed(body: bytes = BODY, *, secrets: str = SECRET, age: float = 0) -> dict[str, str]:
    return SigningSecrets.parse(secrets).headers("msg_1", int(time.time() - age), body)


def test_a_genuine_message_is_its_event() -> None:
    event = verify_webhook(signed(), BODY, SECRET)
    assert isinstance(event, FinishedEvent)
    assert event.detection.verdict == examples.SUCCEEDED.verdict
    test = json.dumps({**EVENT, "event": "webhook.test"}).encode()
    assert isinstance(verify_webhook(signed(test), test, SECRET), gamma_client.TestEvent)


def test_names_of_fields_may_be_in_upper_case() -> None:
    fields = {name.title(): value for name, value in signed().items()}
    assert verify_webhook(fields, BODY, SECRET).id == "msg_1"


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_either_secret_verifies_during_a_rotation(secret: str) -> None:
    assert verify_webhook(signed(secrets=f"{OTHER},{SECRET}"), BODY, secret).id == "msg_1"


@pytest.mark.parametrize("age", [-301, 302, 10_000])
def test_a_recorded_message_is_too_old(age: float) -> None:
    headers = signed(age=age)
    with pytest.raises(WebhookError, match="old"):
        verify_webhook(headers, BODY, SECRET)
    assert verify_webhook(headers, BODY, SECRET, tolerance=20_000).id == "msg_1"


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("sent", [None, "", "é", "v1,é", "v1,\udce9", "v1,AAAA v2,\0", "1e3", "-1"])
def test_a_forged_field_is_not_genuine(name: str, sent: str | None) -> None:
    changed = {**signed(), name: sent}
    headers = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(WebhookError):
        verify_webhook(headers, BODY, SECRET)


@pytest.mark.parametrize(
    ("body", "secret"), [(BODY + b" ", SECRET), (BODY[:-1], SECRET), (b"", SECRET), (BODY, OTHER)]
)
def test_another_body_or_secret_is_not_genuine(body: bytes, secret: str) -> None:
    with pytest.raises(WebhookError, match="signature"):
        verify_webhook(signed(), body, secret)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        json.dumps({**EVENT, "event": "unknown"}).encode(),
        json.dumps({**EVENT, "id": "msg_2"}).encode(),  # of a message that was handled already
    ],
)
def test_a_signed_message_may_be_no_event(body: bytes) -> None:
    with pytest.raises(WebhookError, match="event"):
        verify_webhook(signed(body), body, SECRET)


@pytest.mark.parametrize(
    "secret", ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_é", "whsec_A"]
)
def test_a_malformed_secret_is_a_mistake_of_the_receiver(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(signed(), BODY, secret)
