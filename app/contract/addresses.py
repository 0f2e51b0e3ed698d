"""Public addresses, and the allowlist of other addresses for webhooks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# Legacy notations of IPv4 addresses, such as 0x7f000001 or 127.1.
_LAST_LABEL_IS_NUMBER = re.compile(r"(?:^|\.)(?:\d+|0x[0-9a-f]*)$")

# The only public IPv6 block; it excludes embedded IPv4 addresses (mapped, compatible, NAT64).
_IPV6_PUBLIC = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # metadata and DNS of Azure, in a public block
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments; Teredo, which embeds IPv4
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which embeds IPv4
        "3fff::/20",  # documentation
    )
)


@dataclass(frozen=True)
class Allowlist:
    """Receivers that are exempt from the rules; they may use plain http, on any port."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPNetwork, ...] = ()

    @classmethod
    def parse(cls, given: str | Sequence[str] | Allowlist) -> Allowlist:
        """Parse host names, addresses and networks (`10.1.0.0/16`), separated by commas or spaces.

        Raises:
            ValueError: If an entry is none of these.
        """
        if isinstance(given, Allowlist):
            return given
        entries = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
        hosts, networks = set(), []
        for entry in (e.lower().rstrip(".") for e in entries if e):
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not is_host_name(entry):
                    raise ValueError(f"{entry!r} is not a host name, address or network") from None
                hosts.add(entry)
        return cls(frozenset(hosts), tuple(networks))

    def contains(self, address: IPAddress) -> bool:
        """Whether one of the networks contains an address."""
        return any(address in network for network in self.networks)


def is_public(address: IPAddress) -> bool:
    """Whether an address is a public unicast address."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _IPV6_PUBLIC:
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_PUBLIC)
    )


def is_host_name(host: str) -> bool:
    """Whether a lower-case host is a name, not an address in any notation."""
    return bool(_NAME.fullmatch(host)) and not _LAST_LABEL_IS_NUMBER.search(host)


def address_of(host: str) -> IPAddress | None:
    """Parse a host as an address; None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
