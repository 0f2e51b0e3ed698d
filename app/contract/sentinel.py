"""URLs of a Redis behind Sentinel, which elects a new master when the current one fails.

`redis+sentinel://USER:PASSWORD@HOST:26379,HOST2:26379/MASTER/0`, or `rediss+sentinel://` with TLS
to Redis and to the sentinels. Parameters are those of redis-py's URLs, and `sentinel_username` and
`sentinel_password`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

_PORT = 26379
_TIMEOUT = 0.5  # s; the next sentinel is asked then
_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}


@dataclass(frozen=True)
class Service:
    """What a URL says.

    Attributes:
        name: name of the master.
        sentinels: host and port of each.
        tls: whether connections to Redis use TLS.
        options: of connections to Redis, for redis-py.
        sentinel_options: of connections to the sentinels.
    """

    name: str
    sentinels: list[tuple[str, int]]
    tls: bool
    options: Mapping[str, Any]
    sentinel_options: Mapping[str, Any]


def parse(url: str) -> Service | None:
    """Parse a URL; None if it is not for Sentinel.

    Raises:
        ValueError: If it is malformed.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        return None
    path = re.fullmatch(r"/([\w.-]+)(?:/(\d*))?", parts.path)
    if path is None:
        raise ValueError("the path of a URL for Sentinel is /MASTER/DATABASE")
    credentials, at, hosts = parts.netloc.rpartition("@")
    addresses = [urlsplit(f"//{host}") for host in hosts.split(",")]
    sentinels = [(address.hostname or "", address.port or _PORT) for address in addresses]
    if not all(host for host, _ in sentinels):
        raise ValueError("a URL for Sentinel names at least one host")
    first = hosts.partition(",")[0]
    scheme = _SCHEMES[parts.scheme]
    plain = f"{scheme}://{credentials}{at}{first}/{path[2] or 0}?{parts.query}"
    options: dict[str, Any] = dict(parse_url(plain))  # type: ignore[no-untyped-call]
    tls = options.pop("connection_class", None) is not None
    del options["host"]
    options.pop("port", None)
    own = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    if tls:
        own |= {name: value for name, value in options.items() if name.startswith("ssl_")}
        own["ssl"] = True
    own |= {
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    return Service(path[1], sentinels, tls, options, own)
