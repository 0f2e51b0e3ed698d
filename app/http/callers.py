"""Who calls: the `Authorization: Bearer` header, read before anything else of a request."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, cast
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.contract.directory import Directory
from app.contract.keys import ANONYMOUS, Keys
from app.contract.schemas import ErrorCode
from app.http.problems import ServiceError
from app.http.service import service_of


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and owns what it makes."""

    name: str


class _Key(HTTPBearer):
    """The scheme, and who is known by it, in one: every dependency costs every request."""

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        """The caller by its key; everyone is `anonymous` while there are no keys.

        Raises:
            ServiceError: `key_missing`, `key_invalid`, `origin_refused`.
        """
        keys = cast(Directory, request.app.state.directory).now.keys
        if keys is None and not service_of(request).settings.allow_anonymous:
            _check_origin(request)
        credentials = None if keys is None else await super().__call__(request)
        caller = _caller(keys, credentials)
        request.state.caller = caller.name
        return caller


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_origin(request: Request) -> None:
    """Where no key is asked for, a browser must not lend its place on this machine to strangers.

    A name of theirs that has come to mean this machine is told by the host that the browser
    believes in; a form on a page of theirs by what the browser says of it (W3C Fetch Metadata).

    Raises:
        ServiceError: `origin_refused`.
    """
    ours = _names_this_machine(request.headers.get("host", ""))
    if not ours or request.headers.get("sec-fetch-site") == "cross-site":
        raise ServiceError(ErrorCode.ORIGIN_REFUSED)


@lru_cache(maxsize=64)
def _names_this_machine(host: str) -> bool:
    """Whether a `Host` field does."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _caller(keys: Keys | None, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    if keys is None:
        return Caller(ANONYMOUS)
    if credentials is None:
        raise ServiceError(ErrorCode.KEY_MISSING)
    name = keys.caller_of(credentials.credentials)
    if name is None:
        raise ServiceError(ErrorCode.KEY_INVALID)
    return Caller(name)


identify = _Key(
    auto_error=False,
    scheme_name="key",
    description="The secret of a key that you were given. Without keys the API serves anyone it is "
    "bound for.",
)

TheCaller = Annotated[Caller, Depends(identify)]
