"""Which addresses the API may bind; `gamma serve` checks this without loading the API."""

from __future__ import annotations

import ipaddress

from app.contract.settings import Settings


class OpenBindError(ValueError):
    """The API would be open to everyone who can connect."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"binding {host} without keys opens the API to everyone who can connect; "
            "set GAMMA_API_KEYS or GAMMA_CALLERS_FILE, or pass --allow-anonymous "
            "(GAMMA_ALLOW_ANONYMOUS=true) if this is intended"
        )


def check_binding(settings: Settings) -> None:
    """Check that only loopback is bound without keys.

    Raises:
        OpenBindError: If another address is bound without keys and without `allow_anonymous`.
    """
    guarded = settings.asks_for_keys or settings.allow_anonymous
    if not guarded and not is_loopback(settings.host):
        raise OpenBindError(settings.host)


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
