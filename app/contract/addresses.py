"""Which addresses are public, and which others this installation lets webhooks reach."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# An address in one of the spellings that only old C libraries understand.
_LAST_LABEL_IS_NUMBER = re.compile(r"(?:^|\.)(?:\d+|0x[0-9a-f]*)$")

# IPv6 is public in one block only; so IPv4 in IPv6 clothes (mapped, compatible, NAT64) is not.
_IPV6_PUBLIC = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's metadata and DNS, although the address looks public
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments; Teredo, which embeds IPv4
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which embeds IPv4
        "3fff::/20",  # documentation
    )
)


@dataclass(frozen=True)
class Exceptions:
    """Receivers that are allowed in spite of the rules; they may use plain http, on any port."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPNetwork, ...] = ()

    @classmethod
    def parse(cls, given: str | Sequence[str] | Exceptions) -> Exceptions:
        """Read host names, addresses and networks (`10.1.0.0/16`), by commas or spaces.

        Raises:
            ValueError: an entry is none of these.
        """
        if isinstance(given, Exceptions):
            return given
        entries = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
        hosts, networks = set(), []
        for entry in (e.lower().rstrip(".") for e in entries if e):
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not is_host_name(entry):
                    raise ValueError(f"{entry!r} is no host name, address or network") from None
                hosts.add(entry)
        return cls(frozenset(hosts), tuple(networks))

    def hold(self, address: IPAddress) -> bool:
        """Whether an address lies in one of the networks."""
        return any(address in network for network in self.networks)


def is_public(address: IPAddress) -> bool:
    """Whether an address belongs to one machine in the public internet."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _IPV6_PUBLIC:
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_PUBLIC)
    )


def is_host_name(host: str) -> bool:
    """Whether a host, in small letters, is a name and not some spelling of an address."""
    return bool(_NAME.fullmatch(host)) and not _LAST_LABEL_IS_NUMBER.search(host)


def address_of(host: str) -> IPAddress | None:
    """The address that a host is, if it is not a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
