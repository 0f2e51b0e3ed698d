"""Signatures of the Standard Webhooks scheme (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_MAX_SECRETS = 2  # old and new, during a rotation


@dataclass(frozen=True)
class SigningSecrets:
    """Signing secrets; each message has one signature per secret.

    Attributes:
        keys: decoded secrets, 24 to 64 bytes each.
    """

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def parse(cls, given: str | Sequence[str] | SigningSecrets) -> SigningSecrets:
        """Parse one or two secrets `whsec_<base64>`, separated by commas or whitespace.

        Raises:
            ValueError: If a secret is invalid; the message contains no secrets.
        """
        if isinstance(given, SigningSecrets):
            return given
        entries = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
        keys = tuple(_key(number, entry) for number, entry in enumerate(entries, start=1))
        if not 1 <= len(keys) <= _MAX_SECRETS:
            raise ValueError("there must be one secret, or two during a rotation")
        return cls(keys)

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The header fields with id, time and signatures of a message.

        Args:
            message_id: id of the message, the same for all attempts.
            timestamp: time of this attempt, in seconds since epoch.
            body: body of the request.
        """
        signed = f"{message_id}.{timestamp}.".encode() + body
        signatures = (hmac.new(key, signed, hashlib.sha256).digest() for key in self.keys)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(
                f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
            ),
        }


def _key(number: int, secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _KEY_BYTES:
        raise ValueError(
            f"secret {number} must be `{_PREFIX}` followed by {_KEY_BYTES.start} to "
            f"{_KEY_BYTES.stop - 1} random bytes in base64"
        )
    return key
