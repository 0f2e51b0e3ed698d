"""API keys, stored as the SHA-256 of their secrets."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

ANONYMOUS = "anonymous"
"""Name of every caller if no keys are configured."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASHED = "sha256:"
_MIN_SECRET = 16  # characters; shorter ones could be guessed


@dataclass(frozen=True)
class Key:
    """A key of a caller.

    Attributes:
        caller: name of the caller, a team if it has several keys.
        name: name of the key.
        digest: SHA-256 of the secret; the secret itself is not kept.
        expires: time of expiry; None: never.
    """

    caller: str
    name: str
    digest: bytes = field(repr=False)
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether the key has expired."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


@dataclass(frozen=True)
class Keys:
    """All API keys."""

    entries: tuple[Key, ...]

    def __post_init__(self) -> None:
        """Check that secrets are unique.

        Raises:
            ValueError: If two keys have the same secret.
        """
        if len({key.digest for key in self.entries}) < len(self.entries):
            raise ValueError("two keys have the same secret")

    def find(self, secret: str) -> Key | None:
        """The key with this secret; None if it is unknown or expired.

        The time taken reveals nothing about the keys: all are compared, each in constant time.
        """
        presented = hashlib.sha256(secret.encode()).digest()
        found = None
        for key in self.entries:
            if hmac.compare_digest(key.digest, presented):
                found = key
        return None if found is None or found.expired else found

    @classmethod
    def parse(cls, given: str | Sequence[str] | Keys) -> Keys:
        """Parse `name=secret` and `name=sha256:<hex>`, separated by commas or lines.

        A name may be `name@team`; without a team, the key is a team of its own.

        Raises:
            ValueError: If an entry is invalid; the message contains no secrets.
        """
        if isinstance(given, Keys):
            return given
        entries = re.split(r"[,\n]", given) if isinstance(given, str) else list(given)
        keys: dict[tuple[str, str], Key] = {}
        for number, entry in enumerate((e.strip() for e in entries if e.strip()), start=1):
            names, equals, secret = entry.partition("=")
            if not equals:
                raise ValueError(f"key {number} does not have the form name=secret")
            name, at, team = names.partition("@")
            caller = team if at else name
            if not (is_caller_name(name) and is_caller_name(caller)):
                # The message omits the name, which in a garbled list may be the secret.
                raise ValueError(
                    f"name and team of key {number} must have 1 to 64 letters, digits, `.`, `_` "
                    f"and `-`, and must not be `{ANONYMOUS}`"
                )
            if (caller, name) in keys:
                raise ValueError(f"key {number} repeats the name {names}")
            keys[caller, name] = Key(caller, name, _digest(number, secret))
        if not keys:
            raise ValueError("there are no keys")
        return cls(tuple(keys.values()))


def is_caller_name(name: str) -> bool:
    """Whether this is a valid name of a caller or a key."""
    return bool(_NAME.fullmatch(name)) and name != ANONYMOUS


def _digest(number: int, secret: str) -> bytes:
    if secret.startswith(_HASHED):
        digest = secret.removeprefix(_HASHED)
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise ValueError(f"the hash of key {number} must be 64 hexadecimal digits")
        return bytes.fromhex(digest)
    if len(secret) < _MIN_SECRET or not re.fullmatch(r"[!-~]+", secret):
        raise ValueError(
            f"the secret of key {number} must have at least {_MIN_SECRET} visible ASCII characters"
        )
    return hashlib.sha256(secret.encode()).digest()
