"""Room for uploads, downloads and their bytes, shared by callers that need some at the same time.

How much one caller may hold follows from what is left: no more than it leaves free for others (a
dynamic threshold; Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998). One alone has
half of the room, two a third each, and whoever comes next always finds some. Who holds nothing
else may take whatever is free, so that the largest upload fits too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from app.contract.schemas import ErrorCode
from app.http.problems import ServiceError

_MOST_WAITING = 32  # of a caller; what has come of their bodies lies in memory


class Room:
    """Counts what is held in one place; of one event loop.

    Args:
        size: how much there is, for all callers together.
        unit: of what, in the plural.
        timeout: seconds to wait until enough of it is free.
        code: of the refusal if it is not free in time.
    """

    def __init__(
        self,
        size: int,
        unit: str,
        timeout: float,
        code: ErrorCode = ErrorCode.TOO_MANY_UPLOADS,
    ) -> None:
        self.size = size
        self._unit = unit
        self._timeout = timeout
        self._code = code
        self._free = size
        self._held: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def claim(self, caller: str, size: int = 0) -> AsyncIterator[Claim]:
        """Hold some of it for a caller as long as the context lasts.

        Raises:
            ServiceError: there is too little, see `code`.
        """
        claim = Claim(self, caller)
        try:
            await claim.grow(size)
            yield claim
        finally:
            claim.give_back()

    def has(self, caller: str, more: int, own: int = 0) -> bool:
        """Whether a caller may have so much more now, for a claim that has some of its own."""
        held, left = self._held[caller], self._free - more
        return left >= 0 and (held == own or held + more <= left)

    async def take(self, caller: str, more: int, own: int = 0) -> None:
        """Count so much more as the caller's, as soon as that is possible; see `has`.

        Raises:
            ServiceError: there is too little, see `code`.
        """
        if not self.has(caller, more, own):
            await self._wait(caller, more, own)
        self._free -= more
        self._held[caller] += more

    def give(self, caller: str, size: int) -> None:
        """Count so much as free again."""
        self._free += size
        self._held[caller] -= size
        if not self._held[caller]:
            del self._held[caller]
        self._freed.set()
        self._freed = asyncio.Event()

    async def _wait(self, caller: str, more: int, own: int) -> None:
        refusal = ServiceError(
            self._code,
            f"There is no room for {more} more {self._unit} of yours at the moment.",
        )
        if self._waiting[caller] >= _MOST_WAITING:
            raise refusal
        self._waiting[caller] += 1
        try:
            async with asyncio.timeout(self._timeout):
                while not self.has(caller, more, own):
                    await self._freed.wait()
        except TimeoutError:
            raise refusal from None
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]


class Claim:
    """What one upload holds of a room."""

    def __init__(self, room: Room, caller: str) -> None:
        self._room = room
        self._caller = caller
        self._size = 0

    async def grow(self, size: int) -> None:
        """Hold so much in all; never more than the whole room.

        Raises:
            ServiceError: there is too little, see `code`.
        """
        more = min(size, self._room.size) - self._size
        if more > 0:
            await self._room.take(self._caller, more, self._size)
            self._size += more

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._room.give(self._caller, self._size)
        self._size = 0
