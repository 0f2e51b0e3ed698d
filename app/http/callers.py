"""Authentication with the `Authorization: Bearer` header."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, cast
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.contract.directory import Directory
from app.contract.keys import ANONYMOUS, Keys
from app.contract.schemas import ErrorCode
from app.http.binding import is_loopback
from app.http.problems import ServiceError
from app.http.service import service_of


@dataclass(frozen=True)
class Caller:
    """The sender of a request.

    Attributes:
        name: caller or team, which owns the detections that it creates.
        key: name of the key.
    """

    name: str
    key: str


class _Key(HTTPBearer):
    """Security scheme that returns the caller; one dependency instead of two saves time."""

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        """Identify the caller by its key; without keys, every caller is `anonymous`.

        Raises:
            ServiceError: If it is refused: `key_missing`, `key_invalid` or `origin_refused`.
        """
        keys = cast(Directory, request.app.state.directory).now.keys
        if keys is None and not service_of(request).settings.allow_anonymous:
            _check_origin(request)
        credentials = None if keys is None else await super().__call__(request)
        caller = _caller(keys, credentials)
        request.state.caller, request.state.key = caller.name, caller.key
        return caller


def _check_origin(request: Request) -> None:
    """Without keys, protect against attacks through a local browser.

    DNS rebinding shows in the `Host` field, cross-site requests in `Sec-Fetch-Site` (W3C Fetch
    Metadata).

    Raises:
        ServiceError: If the request is refused: `origin_refused`.
    """
    ours = _names_this_machine(request.headers.get("host", ""))
    if not ours or request.headers.get("sec-fetch-site") == "cross-site":
        raise ServiceError(ErrorCode.ORIGIN_REFUSED)


@lru_cache(maxsize=64)
def _names_this_machine(host: str) -> bool:
    """Whether a `Host` field is a loopback host."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _caller(keys: Keys | None, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    if keys is None:
        return Caller(ANONYMOUS, ANONYMOUS)
    if credentials is None:
        raise ServiceError(ErrorCode.KEY_MISSING)
    key = keys.find(credentials.credentials)
    if key is None:
        raise ServiceError(ErrorCode.KEY_INVALID)
    return Caller(key.caller, key.name)


identify = _Key(
    auto_error=False,
    scheme_name="key",
    description="The secret of your API key. No key is needed if none are configured.",
)

TheCaller = Annotated[Caller, Depends(identify)]
