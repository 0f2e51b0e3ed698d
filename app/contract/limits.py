"""Rate limits of uploads, as a token bucket, and their header fields.

The bucket holds `count` tokens and is refilled evenly with `count` tokens per `window`. Its state
is one number in Redis, updated by one script with Redis's clock, so replicas share it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_WINDOWS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}  # s
_FORM = re.compile(rf"([1-9]\d{{0,5}})/({'|'.join(_WINDOWS)})")
_MICROSECONDS = 1_000_000
_POLICY = '"uploads"'


@dataclass(frozen=True)
class RateLimit:
    """Maximum number of pictures per time window.

    Attributes:
        count: number of pictures.
        window: length in seconds.
    """

    count: int
    window: int

    @classmethod
    def parse(cls, given: str | RateLimit) -> RateLimit:
        """Parse `600/minute` (at most six digits; per second, minute, hour or day).

        Raises:
            ValueError: If the form is another one.
        """
        if isinstance(given, RateLimit):
            return given
        found = _FORM.fullmatch(given)
        if found is None:
            raise ValueError("must have the form 600/minute (per second, minute, hour or day)")
        return cls(int(found.group(1)), _WINDOWS[found.group(2)])

    @property
    def spacing(self) -> int:
        """Microseconds per token; at least 1."""
        return self.window * _MICROSECONDS // self.count

    def __str__(self) -> str:
        names = {seconds: name for name, seconds in _WINDOWS.items()}
        return f"{self.count}/{names[self.window]}"


@dataclass(frozen=True)
class Quota:
    """Remaining quota of a caller's rate limit.

    Attributes:
        left: number of pictures that may be uploaded now.
        full_in: microseconds until the bucket is full.
    """

    limit: RateLimit
    left: int
    full_in: int

    @property
    def retry_after(self) -> int:
        """Seconds until the next picture may be uploaded; 0 if one may be uploaded now."""
        if self.left:
            return 0
        spacing = self.limit.spacing
        return math.ceil((self.full_in - spacing * (self.limit.count - 1)) / _MICROSECONDS)

    def headers(self) -> dict[str, str]:
        """Header fields of draft-ietf-httpapi-ratelimit-headers-10."""
        reset = math.ceil(self.full_in / _MICROSECONDS)
        return {
            "RateLimit-Policy": f"{_POLICY};q={self.limit.count};w={self.limit.window}",
            "RateLimit": f"{_POLICY};r={self.left};t={reset}",
        }


def rate_key(caller: str, limit: RateLimit | None) -> str:
    """Key of the time (µs since epoch) at which a caller's bucket is full.

    It contains the limit, so that a changed limit starts with a full bucket.
    """
    return f"gamma:rate:{limit}:{caller}"
