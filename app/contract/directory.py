"""Callers with their keys and limits: from `GAMMA_API_KEYS` and from a file, reloaded on change.

The file is TOML, with one table per caller:

    [newsroom]
    keys = [
        { sha256 = "1f0c…" },
        { name = "anna", sha256 = "9be7…", expires = 2026-12-24T00:00:00Z },
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
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import (
    AfterValidator,
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
_CHECK_INTERVAL = 1.0  # s, between checks of the file for changes
_KEYS_PER_NAME = 2  # an old and a new one, during a rotation

log = structlog.get_logger()


class CallersFileError(ValueError):
    """`GAMMA_CALLERS_FILE` is invalid; the message says why and contains no secrets."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CallerSettings(_Strict):
    """Limits and secrets of a caller.

    Attributes:
        weight: weight of its share of queue and storage.
        rate_limit: maximum upload rate; None: no limit.
        queue_limit: maximum number of waiting detections; None: its share.
        storage_limit: maximum size of its pictures and masks in bytes; None: its share.
        webhook_secrets: secrets that sign its webhooks; None: webhooks are off.
        webhook_url: URL for uploads that name none; None: they have no webhook.
        search_links: whether the page links to reverse image searches.
    """

    weight: float = Field(1.0, ge=0.01, le=100)
    rate_limit: RateLimitSetting | None = None
    queue_limit: int | None = Field(None, ge=1)
    storage_limit: ByteSize | None = Field(None, ge=1)
    webhook_secrets: SecretsSetting | None = None
    webhook_url: str | None = Field(None, pattern="^https?://", max_length=2048)
    search_links: bool = True


class _Key(_Strict):
    name: str | None = None
    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$")
    expires: AwareDatetime | None = None


def _check_names(keys: list[_Key]) -> list[_Key]:
    for name, times in Counter(key.name for key in keys).items():
        if name is not None and not is_caller_name(name):
            raise ValueError("a key has a name that is invalid in GAMMA_API_KEYS")
        if times > _KEYS_PER_NAME:
            raise ValueError(f"more than {_KEYS_PER_NAME} keys have the same name, or none")
    return keys


class _Table(CallerSettings):
    """A caller in the file."""

    keys: Annotated[list[_Key], Field(min_length=1), AfterValidator(_check_names)]


_TABLES = TypeAdapter(dict[str, _Table])


@dataclass(frozen=True)
class Callers:
    """A snapshot of all callers.

    Attributes:
        keys: None: no keys are needed, and every caller is `anonymous`.
        settings: settings by name of the caller.
    """

    keys: Keys | None
    settings: Mapping[str, CallerSettings]

    @property
    def alone(self) -> bool:
        """Whether there is only one caller, so that nothing has to be shared."""
        return len(self.settings) == 1

    def settings_of(self, name: str) -> CallerSettings:
        """Settings of a caller; the defaults if it was removed."""
        return self.settings.get(name, _DEFAULTS)


_DEFAULTS = CallerSettings()


class Directory:
    """The current callers. Thread-safe.

    If the file becomes invalid, the error is logged and the callers stay as they are.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the file, if there is one.

        Raises:
            CallersFileError: If the file is invalid.
        """
        self._settings = settings
        self._path = settings.callers_file
        self._next_check = time.monotonic() + _CHECK_INTERVAL
        self._lock = threading.Lock()
        self._last_version = self._version()
        self._callers = _read(settings)

    @property
    def now(self) -> Callers:
        """The current callers; checks the file for changes once a second."""
        if self._path is not None and time.monotonic() >= self._next_check:
            with self._lock:  # a slow thread must not restore an older version
                version = self._version()
                if version != self._last_version:
                    self._last_version = version
                    self._reload()
                self._next_check = time.monotonic() + _CHECK_INTERVAL
        return self._callers

    def _reload(self) -> None:
        try:
            self._callers = _read(self._settings)
        except CallersFileError as error:
            log.error("callers_file_refused", error=str(error))
        else:
            log.info("callers_file_loaded", callers=len(self._callers.settings))

    def _version(self) -> tuple[int, ...] | None:
        """Identity, size and modification time of the file; None if it cannot be read."""
        try:
            found = os.stat(self._path) if self._path is not None else None
        except OSError:
            return None
        return found and (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _read(settings: Settings) -> Callers:
    """Combine the callers of the settings and of the file.

    Raises:
        CallersFileError: If the file is invalid, or a name or secret occurs twice.
    """
    common = CallerSettings(
        rate_limit=settings.rate_limit,
        webhook_secrets=settings.webhook_secrets,
        webhook_url=settings.webhook_url,
        search_links=settings.search_links,
    )
    if not settings.asks_for_keys:
        return Callers(None, {ANONYMOUS: common})
    keys = () if settings.api_keys is None else settings.api_keys.entries
    found = {key.caller: common for key in keys}
    for name, table in _tables(settings.callers_file).items():
        if not is_caller_name(name):
            raise CallersFileError("a caller has a name that is invalid in GAMMA_API_KEYS")
        if name in found:
            raise CallersFileError(f"{name} is also in GAMMA_API_KEYS")
        own = {field: getattr(table, field) for field in CallerSettings.model_fields}
        own["rate_limit"] = table.rate_limit or settings.rate_limit
        if "search_links" not in table.model_fields_set:
            own["search_links"] = settings.search_links
        found[name] = CallerSettings(**own)
        keys += tuple(
            Key(name, one.name or name, bytes.fromhex(one.sha256), one.expires)
            for one in table.keys
        )
    try:
        return Callers(Keys(keys), found)
    except ValueError as error:
        raise CallersFileError(str(error)) from None


def _tables(path: Path | None) -> dict[str, _Table]:
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
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8
        place = re.search(r"at line \d+, column \d+", str(error))
        raise CallersFileError(f"{path} is not TOML{f' {place[0]}' if place else ''}") from None


def _described(wrong: ErrorDetails) -> str:
    """Describe an error; omits names that do not look like a field, as they may be secrets."""
    names = (one if re.fullmatch(_FIELD, str(one)) else "…" for one in wrong["loc"][1:])
    return f"{'.'.join(map(str, (wrong['loc'][0], *names)))}: {wrong['msg']}"
