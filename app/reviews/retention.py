"""Deletion of reviews after their retention time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import structlog

from app.reviews.assignments import Assignments
from app.reviews.database import ReviewsUnavailableError
from app.reviews.store import Reviews

_INTERVAL = 3600.0  # s

log = structlog.get_logger()


class Retention:
    """Regular deletion of old reviews and ended assignments; every process may do it.

    Args:
        reviews: reviews to delete.
        assignments: assignments to delete.
        days: age at which a review is deleted.
    """

    def __init__(self, reviews: Reviews, assignments: Assignments, days: int) -> None:
        self._reviews = reviews
        self._assignments = assignments
        self._age = timedelta(days=days)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Delete regularly while the context lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._run)
            yield
            group.cancel_scope.cancel()

    async def _run(self) -> None:
        while True:
            # The database logs its errors.
            with contextlib.suppress(ReviewsUnavailableError):
                deleted = await self._reviews.purge(self._age)
                await self._assignments.purge()
                log.info("reviews_purged", deleted=deleted)
            await asyncio.sleep(_INTERVAL)
