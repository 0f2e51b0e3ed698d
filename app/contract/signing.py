"""Signatures by the Standard Webhooks scheme (standardwebhooks.com)."""

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
_MOST = 2  # the new secret and the old one, while receivers change over


@dataclass(frozen=True)
class SigningSecrets:
    """The secrets that sign; each message carries a signature by every one of them.

    Attributes:
        keys: what the base64 of the secrets holds.
    """

    keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def parse(cls, given: str | Sequence[str] | SigningSecrets) -> SigningSecrets:
        """Read `whsec_<base64>`, two of them by a comma, a space or a line.

        Raises:
            ValueError: see the message, which never holds a secret.
        """
        if isinstance(given, SigningSecrets):
            return given
        entries = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
        keys = tuple(_key(number, entry) for number, entry in enumerate(entries, start=1))
        if not 1 <= len(keys) <= _MOST:
            raise ValueError("there must be one secret, or two while one replaces the other")
        return cls(keys)

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The three headers that prove who sent `body`, and when.

        Args:
            message_id: stays the same when the message is sent again.
            timestamp: seconds since the epoch, of this try.
            body: the bytes as they are sent.
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
            f"secret {number} must be `{_PREFIX}` and the base64 of "
            f"{_KEY_BYTES.start} to {_KEY_BYTES.stop - 1} random bytes"
        )
    return key
