"""Addresses of clients, as log lines and spans show them."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Literal

from starlette.types import Scope

from app.contract.addresses import address_of

Shown = Literal["full", "masked", "off"]
"""How an address is shown: `masked` clears the last 8 bits of IPv4, the last 80 of IPv6."""

_NETWORK_BITS = {4: 24, 6: 48}


def client_of(scope: Scope, shown: Shown) -> str | None:
    """Address of the client of a request, as far as it may be shown.

    Args:
        scope: of the request; uvicorn sets the client, also behind a trusted proxy.
        shown: how it may be shown.

    Returns:
        None if it is not shown, or unknown, such as of a Unix socket.
    """
    client = scope.get("client")
    return None if client is None or shown == "off" else _address(client[0], shown == "masked")


@lru_cache(maxsize=1024)
def _address(host: str, masked: bool) -> str | None:
    address = address_of(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address is None or not masked:
        return None if address is None else str(address)
    network = ip_network((int(address), _NETWORK_BITS[address.version]), strict=False)
    return str(network.network_address)
