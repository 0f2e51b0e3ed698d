"""API keys: who may call, known by the SHA-256 of a secret."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

ANONYMOUS = "anonymous"
"""Name of every caller while there are no keys."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASHED = "sha256:"
_MIN_SECRET = 16  # characters; what can be guessed by trying is no key


@dataclass(frozen=True)
class Keys:
    """The keys that open the API. Secrets are not kept, only their SHA-256, and that is not shown.

    Attributes:
        digests: SHA-256 of the secret, by the name of the caller.
    """

    digests: Mapping[str, bytes] = field(repr=False)

    def caller_of(self, secret: str) -> str | None:
        """Name of the caller that a secret belongs to, or None.

        Each key is compared in constant time, and all of them whichever fits: the time tells
        nothing about the keys.
        """
        presented = hashlib.sha256(secret.encode()).digest()
        found = None
        for name, digest in self.digests.items():
            if hmac.compare_digest(digest, presented):
                found = name
        return found

    @classmethod
    def parse(cls, given: str | Sequence[str] | Keys) -> Keys:
        """Read `name=secret` or `name=sha256:<hex>`, several by commas or lines.

        Raises:
            ValueError: see the message, which never holds a secret.
        """
        if isinstance(given, Keys):
            return given
        entries = re.split(r"[,\n]", given) if isinstance(given, str) else list(given)
        digests: dict[str, bytes] = {}
        for number, entry in enumerate((e.strip() for e in entries if e.strip()), start=1):
            name, equals, secret = entry.partition("=")
            if not equals:
                raise ValueError(f"key {number} is not of the form name=secret")
            if not _NAME.fullmatch(name) or name == ANONYMOUS:
                # The name is not repeated: in a garbled list it may be the secret.
                raise ValueError(
                    f"the name of key {number} must be of letters, digits, `.`, `_` and `-`, "
                    f"at most 64, and not `{ANONYMOUS}`"
                )
            if name in digests:
                raise ValueError(f"the name of key {number}, {name}, is given twice")
            digests[name] = _digest(number, secret)
        if not digests:
            raise ValueError("there is no key in it")
        if len(set(digests.values())) < len(digests):
            raise ValueError("two names share one secret")
        return cls(MappingProxyType(digests))


def _digest(number: int, secret: str) -> bytes:
    if secret.startswith(_HASHED):
        digest = secret.removeprefix(_HASHED)
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise ValueError(f"the hash of key {number} must be 64 hexadecimal digits")
        return bytes.fromhex(digest)
    if len(secret) < _MIN_SECRET or not re.fullmatch(r"[!-~]+", secret):
        raise ValueError(
            f"the secret of key {number} must be {_MIN_SECRET} or more visible ASCII characters"
        )
    return hashlib.sha256(secret.encode()).digest()
