"""Check of the names of environment variables and secret files: an unknown name is an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

PREFIX = "GAMMA_"

# Not settings: read by docker-compose.yml, deploy/redis and clients.
_OTHERS = ("PUBLISHED_ADDRESS", "PUBLISHED_PORT", "REDIS_URL_FILE", "KEY")

# Kubernetes sets variables for the Services of a namespace (enableServiceLinks), for example
# GAMMA_REDIS_SERVICE_HOST and GAMMA_REDIS_PORT=tcp://10.0.0.7:6379 for `gamma-redis`.
_SERVICE_LINK = re.compile(
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
_LINK = re.compile(r"(tcp|udp|sctp)://")


class UnknownSettingError(ValueError):
    """Names that are not settings; the message has one line per name, and no values."""


def check_names(
    known: Collection[str], environment: Mapping[str, str], files: Iterable[str]
) -> None:
    """Check that every name with the prefix is a setting.

    Variables that Kubernetes sets for Services are ignored, except `GAMMA_PORT`, which is also a
    setting.

    Args:
        known: names of settings without the prefix, in lower case.
        environment: all environment variables.
        files: names of the secret files.

    Raises:
        UnknownSettingError: If a name is not a setting.
    """
    problems = []
    for name, value in environment.items():
        rest = name.upper().removeprefix(PREFIX)
        if rest == name.upper() or rest in _OTHERS:
            continue
        if _LINK.match(value) and rest == "PORT":
            problems.append(
                f"{name} was set by Kubernetes for a Service named `gamma`: set "
                "`enableServiceLinks: false` in the pod, or rename the Service"
            )
        elif rest.lower() not in known and not _is_service_link(rest, value):
            problems.append(f"{name} is not a setting{suggestion(rest, known, PREFIX)}")
    for name in files:
        rest = name.lower().removeprefix(PREFIX.lower())
        if rest != name.lower() and rest not in known:
            problems.append(
                f"the secret file {name} is not a setting{suggestion(rest, known, PREFIX.lower())}"
            )
    if problems:
        raise UnknownSettingError("\n".join(problems))


def suggestion(name: str, known: Collection[str], prefix: str = "") -> str:
    """Suggest a similar name, as text to append to an error message; empty if there is none.

    Args:
        name: unknown name without the prefix.
        known: known names, in lower case.
        prefix: prefix of the suggestion, which is upper case if the prefix is.
    """
    close = difflib.get_close_matches(name.lower(), known, n=1)
    if not close:
        return ""
    return f"; did you mean {prefix}{close[0].upper() if prefix.isupper() else close[0]}?"


def _is_service_link(name: str, value: str) -> bool:
    linked = name.endswith("_PORT") and _LINK.match(value)
    return bool(linked or _SERVICE_LINK.search(name))
