"""Limited resources (connections, memory, disk) that callers share.

A caller may hold at most as much as it leaves free (a dynamic threshold; Choudhury and Hahne,
IEEE/ACM Transactions on Networking 6, 1998): a single caller gets half, two callers a third each,
and some is always free for others. A caller that holds nothing may take all that is free, so that
the largest upload fits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from app.contract.schemas import ErrorCode
from app.http.problems import ServiceError

_MAX_WAITING = 32  # claims per caller; their bodies use memory


class Room:
    """One resource, used in one event loop.

    Args:
        size: total amount.
        unit: name of the unit, in the plural.
        timeout: seconds to wait for enough to become free.
        code: error code if not enough becomes free in time.
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
        """Hold an amount for a caller while the context lasts.

        Raises:
            ServiceError: If not enough becomes free in time.
        """
        claim = Claim(self, caller)
        try:
            await claim.grow(size)
            yield claim
        finally:
            claim.give_back()

    def has(self, caller: str, more: int, own: int = 0) -> bool:
        """Whether a caller may take `more` now, for a claim that already holds `own`."""
        held, left = self._held[caller], self._free - more
        return left >= 0 and (held == own or held + more <= left)

    async def take(self, caller: str, more: int, own: int = 0) -> None:
        """Wait until `has` is true, then take `more`.

        Raises:
            ServiceError: If not enough becomes free in time.
        """
        if not self.has(caller, more, own):
            await self._wait(caller, more, own)
        self._free -= more
        self._held[caller] += more

    def give(self, caller: str, size: int) -> None:
        """Release an amount."""
        self._free += size
        self._held[caller] -= size
        if not self._held[caller]:
            del self._held[caller]
        self._freed.set()
        self._freed = asyncio.Event()

    async def _wait(self, caller: str, more: int, own: int) -> None:
        refusal = ServiceError(
            self._code,
            f"Your share is in use: {more} more {self._unit} do not fit at the moment.",
        )
        if self._waiting[caller] >= _MAX_WAITING:
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
    """The part of a `Room` that one request holds."""

    def __init__(self, room: Room, caller: str) -> None:
        self._room = room
        self._caller = caller
        self._size = 0

    async def grow(self, size: int) -> None:
        """Increase the total to `size`, at most the size of the room.

        Raises:
            ServiceError: If not enough becomes free in time.
        """
        more = min(size, self._room.size) - self._size
        if more > 0:
            await self._room.take(self._caller, more, self._size)
            self._size += more

    def give_back(self) -> None:
        """Release everything."""
        self._room.give(self._caller, self._size)
        self._size = 0
