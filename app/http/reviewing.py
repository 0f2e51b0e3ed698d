"""Review of detections: decisions and assignments, together with records."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from app.contract import records
from app.contract.reviews import Assignment
from app.contract.schemas import Detection, Status
from app.contract.settings import Settings
from app.contract.store import Store
from app.http import guard
from app.reviews.assignments import Assignments, TakenError
from app.reviews.database import Database
from app.reviews.retention import Retention
from app.reviews.reviewer import Reviewer
from app.reviews.store import Reviews

_IDS = 500  # per look into the index
_RECORDS = 50  # per look at records


class Reviewing:
    """What the routes of reviews share: one per process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings)
        self.reviews = Reviews(self._database)
        self.assignments = Assignments(self._database, settings.review_lock)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Migrate the database, and delete old reviews, while the context lasts."""
        retention = Retention(self.reviews, self.assignments, self._settings.review_retention)
        async with self._database.running(), retention.running():
            yield

    async def next(
        self, store: Store, reviewer: Reviewer, after: Detection | None
    ) -> tuple[Detection, Assignment] | None:
        """Assign the oldest detection that is undecided and that nobody else has open.

        Only detections with a result count, and whose picture is still stored.

        Args:
            store: the detections.
            reviewer: who asks.
            after: skip this detection and those before it.
        """
        oldest = datetime.now(UTC) - timedelta(seconds=self._settings.retention)
        start = f"[{records.member(oldest)}"
        if after is not None:
            start = max(start, f"({records.member(after.created_at, after.id)}", key=_place)
        while members := await run_in_threadpool(_members, store, reviewer.team, start):
            names = [records.id_of(member) for member in members]
            free = await self._undecided(reviewer, names)
            for at in range(0, len(free), _RECORDS):
                guard.begin()  # a new time budget for each read
                found = await run_in_threadpool(
                    store.get_owned, free[at : at + _RECORDS], reviewer.team
                )
                for detection in found:
                    if detection is not None and detection.status is Status.SUCCEEDED:
                        assignment = await self._take(reviewer, detection.id)
                        if assignment is not None:
                            return detection, assignment
            start = f"({members[-1]}"
            guard.begin()
        return None

    async def _undecided(self, reviewer: Reviewer, names: Sequence[str]) -> list[str]:
        """Those detections that have no decision and that nobody else has open."""
        taken = set(await self.reviews.current(reviewer.team, names))
        taken |= {
            one.detection_id
            for one in await self.assignments.of(reviewer.team, names)
            if not reviewer.holds(one)
        }
        return [name for name in names if name not in taken]

    async def _take(self, reviewer: Reviewer, detection_id: str) -> Assignment | None:
        """Assign a detection; None if somebody has opened or decided it meanwhile."""
        try:
            assignment = await self.assignments.take(reviewer, detection_id)
        except TakenError:
            return None
        if await self.reviews.current(reviewer.team, [detection_id]):
            await self.assignments.release(reviewer, detection_id)
            return None
        return assignment


def _place(start: str) -> str:
    return start[1:]


def _members(store: Store, owner: str, start: str) -> list[str]:
    found = store.redis.zrange(records.index_key(owner), start, "+", bylex=True, offset=0, num=_IDS)
    return [member.decode() for member in cast(list[bytes], found)]


def reviewing_of(request: Request) -> Reviewing:
    """The reviews of the application that handles the request."""
    return cast(Reviewing, request.app.state.reviewing)
