"""Connections, memory and disk space that callers share.

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
from app.contract.settings import Settings
from app.http.fetching import FETCHES
from app.http.problems import ServiceError

_MAX_WAITING = 32  # requests per caller; their bodies use memory
_MEMORY = 16 * 2**20  # bytes of small incoming requests; further ones are written to disk
_LARGE = 64 * 2**20  # bytes of large pictures that are copied from disk to Redis
_RENDERINGS = 4  # previews and composites, running or waiting
_DOWNLOADS = 128 * 2**20  # bytes of pictures and masks that are being sent


class Resources:
    """The shared resources of one API process."""

    def __init__(self, settings: Settings) -> None:
        self.connections = FairSemaphore(settings.max_connections, "uploads", timeout=0)
        self.memory = FairSemaphore(_MEMORY, "bytes", timeout=0)
        self.disk = FairSemaphore(int(settings.upload_space), "bytes", timeout=5)
        self.large = FairSemaphore(_LARGE, "bytes", timeout=60)
        too_many = ErrorCode.TOO_MANY_DOWNLOADS
        self.renderings = FairSemaphore(_RENDERINGS, "renderings", 30, too_many)
        self.fetches = FairSemaphore(FETCHES, "fetches", timeout=15)
        self.streams = FairSemaphore(settings.max_connections // 4, "streams", 0, too_many)
        self.downloads = FairSemaphore(_DOWNLOADS, "bytes", 30, too_many)


class FairSemaphore:
    """A weighted semaphore whose capacity callers share; for one event loop.

    Args:
        capacity: total amount.
        unit: name of the unit, in the plural.
        timeout: seconds to wait for enough to become free.
        code: error code if not enough becomes free in time.
    """

    def __init__(
        self,
        capacity: int,
        unit: str,
        timeout: float,
        code: ErrorCode = ErrorCode.TOO_MANY_UPLOADS,
    ) -> None:
        self.capacity = capacity
        self._unit = unit
        self._timeout = timeout
        self._code = code
        self._free = capacity
        self._held: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hold(self, caller: str, size: int = 0) -> AsyncIterator[Permit]:
        """Hold an amount for a caller while the context lasts.

        Raises:
            ServiceError: If not enough becomes free in time.
        """
        permit = Permit(self, caller)
        try:
            await permit.grow(size)
            yield permit
        finally:
            permit.release()

    def available(self, caller: str, more: int, own: int = 0) -> bool:
        """Whether a caller may take `more` now, with a permit that already holds `own`."""
        held, left = self._held[caller], self._free - more
        return left >= 0 and (held == own or held + more <= left)

    async def acquire(self, caller: str, more: int, own: int = 0) -> None:
        """Take `more`; waits until it is available.

        Raises:
            ServiceError: If not enough becomes free in time.
        """
        if not self.available(caller, more, own):
            await self._wait(caller, more, own)
        self._free -= more
        self._held[caller] += more

    def release(self, caller: str, size: int) -> None:
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
                while not self.available(caller, more, own):
                    await self._freed.wait()
        except TimeoutError:
            raise refusal from None
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]


class Permit:
    """The part of a `FairSemaphore` that one request holds."""

    def __init__(self, semaphore: FairSemaphore, caller: str) -> None:
        self._semaphore = semaphore
        self._caller = caller
        self._size = 0

    async def grow(self, size: int) -> None:
        """Increase the total to `size`, at most the capacity.

        Raises:
            ServiceError: If not enough becomes free in time.
        """
        more = min(size, self._semaphore.capacity) - self._size
        if more > 0:
            await self._semaphore.acquire(self._caller, more, self._size)
            self._size += more

    def release(self) -> None:
        """Release everything."""
        self._semaphore.release(self._caller, self._size)
        self._size = 0
