"""Signatures of webhooks, as in Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from gamma_client.errors import WebhookError
from gamma_client.models import FinishedEvent, TestEvent

_PREFIX = "whsec_"
_EVENTS: TypeAdapter[FinishedEvent | TestEvent] = TypeAdapter(
    Annotated[FinishedEvent | TestEvent, Field(discriminator="event")]
)


def verify_webhook(
    headers: Mapping[str, str], body: bytes, secret: str, *, tolerance: float = 300
) -> FinishedEvent | TestEvent:
    """Check that a webhook request comes from the owner of a secret, and return its event.

    A genuine message can arrive twice: remember the `id` of those that you have handled.

    Args:
        headers: header fields of the request; upper and lower case do not matter.
        body: body of the request, byte by byte as it was received.
        secret: the signing secret, `whsec_…`.
        tolerance: how many seconds the clock of the request may differ from yours.

    Raises:
        WebhookError: If it is not genuine, is older than `tolerance`, or holds no known event.
        ValueError: If the secret is malformed.
    """
    key = _key(secret)
    fields = {name.lower(): value for name, value in headers.items()}
    # As bytes: those of a forged request may hold any characters.
    message, sent, signatures = (
        fields.get(name, "").encode(errors="replace")
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    digest = hmac.new(key, b".".join([message, sent, body]), hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    if not any(hmac.compare_digest(expected, one) for one in signatures.split()):
        raise WebhookError("no signature of the request matches")
    if not sent.isdigit() or abs(time.time() - int(sent)) > tolerance:
        raise WebhookError("the request is too old, or of another time")
    try:
        event = _EVENTS.validate_json(body)
    except ValidationError:
        raise WebhookError("the request holds no known event") from None
    if event.id.encode() != message:
        raise WebhookError("the event has another id than the request")
    return event


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(_PREFIX) or not key:
        raise ValueError(f"the secret must be {_PREFIX} and base64")
    return key
