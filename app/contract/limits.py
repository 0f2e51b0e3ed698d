"""Rate limits: how many pictures a caller may upload, and the header fields that tell it.

The limit is a bucket that holds `count` pictures and fills evenly, `count` in a `window`. One
number in Redis is the whole state, read and written by one script: replicas share it, and Redis's
clock alone counts. `app.http.admission` asks it together with the length of the queue.
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
    """So many pictures in so many seconds.

    Attributes:
        window: s
    """

    count: int
    window: int

    @classmethod
    def parse(cls, given: str | RateLimit) -> RateLimit:
        """Read `600/minute` (at most six digits; per second, minute, hour or day).

        Raises:
            ValueError: it is not of this form.
        """
        if isinstance(given, RateLimit):
            return given
        found = _FORM.fullmatch(given)
        if found is None:
            raise ValueError("must be like 600/minute; per second, minute, hour or day")
        return cls(int(found.group(1)), _WINDOWS[found.group(2)])

    @property
    def spacing(self) -> int:
        """Microseconds in which the bucket fills by one picture; at least 1."""
        return self.window * _MICROSECONDS // self.count

    def __str__(self) -> str:
        names = {seconds: name for name, seconds in _WINDOWS.items()}
        return f"{self.count}/{names[self.window]}"


@dataclass(frozen=True)
class Quota:
    """What is left of a caller's rate limit.

    Attributes:
        left: pictures that may be uploaded now.
        full_in: microseconds until the bucket is full again.
    """

    limit: RateLimit
    left: int
    full_in: int

    @property
    def retry_after(self) -> int:
        """Seconds until one more picture may be uploaded; 0 if it may now."""
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
    """Key of the moment (µs since epoch) at which a caller's bucket is full again.

    Another limit is another bucket, so that a higher one helps at once.
    """
    return f"gamma:rate:{limit}:{caller}"
