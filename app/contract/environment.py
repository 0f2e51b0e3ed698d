"""Names of environment variables and secret files: one that means nothing is an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

PREFIX = "GAMMA_"

# Read where GAMMA runs, by others than its programs: docker-compose.yml, deploy/redis, clients.
_OTHERS = ("PUBLISHED_ADDRESS", "PUBLISHED_PORT", "REDIS_URL_FILE", "KEY")

# Kubernetes tells each pod the Services of its namespace (enableServiceLinks): of `gamma-redis`,
# GAMMA_REDIS_SERVICE_HOST, GAMMA_REDIS_PORT=tcp://10.0.0.7:6379 and so on.
_SERVICE_LINK = re.compile(
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
_LINK = re.compile(r"(tcp|udp|sctp)://")


class UnknownSettingError(ValueError):
    """Names that are no settings; the message has a line for each, and no values."""


def check_names(
    known: Collection[str], environment: Mapping[str, str], files: Iterable[str]
) -> None:
    """See that every name that looks like a setting is one.

    What Kubernetes sets for Services is left alone, except `GAMMA_PORT`, which is a setting too.

    Args:
        known: what may follow the prefix, in lower case.
        environment: all variables.
        files: names of the files that hold secrets.

    Raises:
        UnknownSettingError: one is not.
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
            problems.append(f"{name} is no setting{suggestion(rest, known, PREFIX)}")
    for name in files:
        rest = name.lower().removeprefix(PREFIX.lower())
        if rest != name.lower() and rest not in known:
            problems.append(
                f"the secret file {name} is no setting{suggestion(rest, known, PREFIX.lower())}"
            )
    if problems:
        raise UnknownSettingError("\n".join(problems))


def suggestion(name: str, known: Collection[str], prefix: str = "") -> str:
    """What somebody may have meant, to be put behind the message that a name is not known.

    Args:
        name: without the prefix.
        known: in lower case.
        prefix: put before what is suggested, which is written as the prefix is.
    """
    close = difflib.get_close_matches(name.lower(), known, n=1)
    if not close:
        return ""
    return f"; did you mean {prefix}{close[0].upper() if prefix.isupper() else close[0]}?"


def _is_service_link(name: str, value: str) -> bool:
    linked = name.endswith("_PORT") and _LINK.match(value)
    return bool(linked or _SERVICE_LINK.search(name))
