"""Who may call, and on what terms: `GAMMA_API_KEYS`, and a file that may change at any time.

The file is TOML, a table for each caller:

    [newsroom]
    keys = [
        { sha256 = "1f0c…" },
        { sha256 = "9be7…", expires = 2026-12-24T00:00:00Z },
    ]
    rate_limit = "600/minute"
    webhook_secrets = ["whsec_…"]
"""

from __future__ import annotations

import os
import re
import threading
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import (
    AwareDatetime,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from app.contract.keys import ANONYMOUS, Key, Keys, is_caller_name
from app.contract.settings import RateLimitSetting, SecretsSetting, Settings

_FIELD = r"[a-z0-9_]{1,20}"
_LOOK_INTERVAL = 1.0  # s; a change of the file counts after this time at the latest

log = structlog.get_logger()


class CallersFileError(ValueError):
    """`GAMMA_CALLERS_FILE` cannot be used; the message says why, and holds no secret."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Terms(_Strict):
    """What a caller is granted.

    Attributes:
        weight: its share of queue and storage, beside the others'.
        rate_limit: most pictures it may upload; None: any number.
        queue_limit: most of its detections that may wait; None: as its share allows.
        storage_limit: most bytes of pictures and masks that are kept for it; None: likewise.
        webhook_secrets: what signs its webhooks; None: it has none.
    """

    weight: float = Field(1.0, ge=0.01, le=100)
    rate_limit: RateLimitSetting | None = None
    queue_limit: int | None = Field(None, ge=1)
    storage_limit: ByteSize | None = Field(None, ge=1)
    webhook_secrets: SecretsSetting | None = None


class _Key(_Strict):
    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$")
    expires: AwareDatetime | None = None


class _Caller(Terms):
    """A table of the file."""

    keys: Annotated[list[_Key], Field(min_length=1, max_length=2)]


_TABLES = TypeAdapter(dict[str, _Caller])


@dataclass(frozen=True)
class Callers:
    """All callers at one moment.

    Attributes:
        keys: None: no key is asked for, and everyone is `anonymous`.
        terms: by the names of the callers.
    """

    keys: Keys | None
    terms: Mapping[str, Terms]

    @property
    def alone(self) -> bool:
        """Whether nobody is to be protected from another."""
        return len(self.terms) == 1

    def terms_of(self, name: str) -> Terms:
        """A caller's terms; nothing is granted to one that is there no longer."""
        return self.terms.get(name, _NO_TERMS)


_NO_TERMS = Terms()


class Directory:
    """The callers as of now. Safe to share between threads.

    A file that has become unusable changes nothing: the log says what is wrong with it.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the file, if there is one.

        Raises:
            CallersFileError: see there.
        """
        self._settings = settings
        self._path = settings.callers_file
        self._next_look = time.monotonic() + _LOOK_INTERVAL
        self._looking = threading.Lock()
        self._seen = self._version()
        self._callers = _read(settings)

    @property
    def now(self) -> Callers:
        """The callers; the file is looked at once a second."""
        if self._path is not None and time.monotonic() >= self._next_look:
            with self._looking:  # a slow thread must not put older callers back
                version = self._version()
                if version != self._seen:
                    self._seen = version
                    self._reload()
                self._next_look = time.monotonic() + _LOOK_INTERVAL
        return self._callers

    def _reload(self) -> None:
        try:
            self._callers = _read(self._settings)
        except CallersFileError as error:
            log.error("callers_file_refused", error=str(error))
        else:
            log.info("callers_file_loaded", callers=len(self._callers.terms))

    def _version(self) -> tuple[int, ...] | None:
        """What differs when the file has changed or was replaced."""
        try:
            found = os.stat(self._path) if self._path is not None else None
        except OSError:
            return None
        return found and (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _read(settings: Settings) -> Callers:
    """The callers of settings and file.

    Raises:
        CallersFileError: see there.
    """
    common = Terms(rate_limit=settings.rate_limit, webhook_secrets=settings.webhook_secrets)
    if not settings.asks_for_keys:
        return Callers(None, {ANONYMOUS: common})
    keys = () if settings.api_keys is None else settings.api_keys.entries
    terms = {key.caller: common for key in keys}
    for name, caller in _tables(settings.callers_file).items():
        if not is_caller_name(name):
            raise CallersFileError("a caller has a name that GAMMA_API_KEYS would not take")
        if name in terms:
            raise CallersFileError(f"{name} is in GAMMA_API_KEYS too")
        granted = {field: getattr(caller, field) for field in Terms.model_fields}
        granted["rate_limit"] = caller.rate_limit or settings.rate_limit
        terms[name] = Terms(**granted)
        keys += tuple(Key(name, bytes.fromhex(k.sha256), k.expires) for k in caller.keys)
    try:
        return Callers(Keys(keys), terms)
    except ValueError as error:
        raise CallersFileError(str(error)) from None


def _tables(path: Path | None) -> dict[str, _Caller]:
    if path is None:
        return {}
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text())
        return _TABLES.validate_python(found)
    except OSError as error:
        raise CallersFileError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        details = "; ".join(map(_described, error.errors()))
        raise CallersFileError(f"{path}: {details}") from None
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        place = re.search(r"at line \d+, column \d+", str(error))
        raise CallersFileError(f"{path} is not TOML{f' {place[0]}' if place else ''}") from None


def _described(wrong: ErrorDetails) -> str:
    """What is wrong; of names only those that look like a field's, as others may be a secret."""
    names = (one if re.fullmatch(_FIELD, str(one)) else "…" for one in wrong["loc"][1:])
    return f"{'.'.join(map(str, (wrong['loc'][0], *names)))}: {wrong['msg']}"
