"""API keys: who may call, known by the SHA-256 of a secret."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

ANONYMOUS = "anonymous"
"""Name of every caller while there are no keys."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASHED = "sha256:"
_MIN_SECRET = 16  # characters; what can be guessed by trying is no key


@dataclass(frozen=True)
class Key:
    """A key of a caller. The secret is not kept, only its SHA-256, and that is not shown.

    Attributes:
        caller: name of the caller.
        expires: from then on it opens nothing; None: it does not expire.
    """

    caller: str
    digest: bytes = field(repr=False)
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


@dataclass(frozen=True)
class Keys:
    """The keys that open the API."""

    entries: tuple[Key, ...]

    def __post_init__(self) -> None:
        """Check that each key tells who calls.

        Raises:
            ValueError: two keys have the same secret.
        """
        if len({key.digest for key in self.entries}) < len(self.entries):
            raise ValueError("two keys have the same secret")

    def caller_of(self, secret: str) -> str | None:
        """Name of the caller that a secret belongs to, or None; expired keys belong to nobody.

        Each key is compared in constant time, and all of them whichever fits: the time tells
        nothing about the keys.
        """
        presented = hashlib.sha256(secret.encode()).digest()
        found = None
        for key in self.entries:
            if hmac.compare_digest(key.digest, presented):
                found = key
        return None if found is None or found.expired else found.caller

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
            if not is_caller_name(name):
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
        return cls(tuple(Key(name, digest) for name, digest in digests.items()))


def is_caller_name(name: str) -> bool:
    """Whether a caller may have this name."""
    return bool(_NAME.fullmatch(name)) and name != ANONYMOUS


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
