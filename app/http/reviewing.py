"""Review of detections: decisions and assignments, together with records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from app.contract import records
from app.contract.reviews import Assignment, Review
from app.contract.schemas import Detection, Status
from app.contract.settings import Settings
from app.contract.store import Store
from app.http import guard
from app.reviews.assignments import Assignments, TakenError
from app.reviews.database import Database
from app.reviews.retention import Retention
from app.reviews.reviewer import Reviewer
from app.reviews.store import Reviews, Seen

_IDS = 500  # per look into the index
_RECORDS = 50  # per look at records
_DONE = 300.0  # s until all are looked at again, for decisions withdrawn at other replicas


class _Done:
    """Up to where each team's detections need no decision, so that `next` starts there."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}  # member of the index, end of validity

    def before(self, team: str) -> str:
        """Start of a range of the index after those that are done."""
        member, until = self._known.get(team, ("", 0.0))
        return f"({member}" if time.monotonic() < until else "("

    def extend(self, team: str, member: str) -> None:
        """Note that all up to `member` are done."""
        _, until = self._known.get(team, ("", 0.0))
        now = time.monotonic()
        self._known[team] = member, until if now < until else now + _DONE

    def forget(self, team: str) -> None:
        """Let the next look begin with the oldest."""
        self._known.pop(team, None)


class Reviewing:
    """What the routes of reviews share: one per process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings)
        self.reviews = Reviews(self._database)
        self.assignments = Assignments(self._database, settings.review_lock)
        self._done = _Done()

    async def withdraw(self, reviewer: Reviewer, detection_id: str, seen: Seen) -> list[Review]:
        """As `Reviews.withdraw`; the detection is undecided again for `next`."""
        history = await self.reviews.withdraw(reviewer, detection_id, seen)
        self._done.forget(reviewer.team)
        return history

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
        starts = [f"[{records.member(oldest)}", self._done.before(reviewer.team)]
        if after is not None:
            starts.append(f"({records.member(after.created_at, after.id)}")
        start = max(starts, key=_place)
        complete = after is None  # whether all before `start` is done
        while members := await run_in_threadpool(_members, store, reviewer.team, start):
            names = [records.id_of(member) for member in members]
            done, found = await self._look(store, reviewer, names)
            leading = next((at for at, name in enumerate(names) if name not in done), len(names))
            if complete and leading:
                self._done.extend(reviewer.team, members[leading - 1])
            if found is not None:
                return found
            complete = complete and leading == len(names)
            start = f"({members[-1]}"
            guard.begin()  # a new time budget for each look
        return None

    async def _look(
        self, store: Store, reviewer: Reviewer, names: Sequence[str]
    ) -> tuple[set[str], tuple[Detection, Assignment] | None]:
        """Assign the first undecided detection of `names`, if there is one.

        Returns:
            Those up to it that need no decision, and the assignment.
        """
        done = set(await self.reviews.current(reviewer.team, names))
        taken = {
            one.detection_id
            for one in await self.assignments.of(reviewer.team, names)
            if not reviewer.holds(one)
        }
        free = [name for name in names if name not in done | taken]
        for at in range(0, len(free), _RECORDS):
            guard.begin()
            some = free[at : at + _RECORDS]
            found = await run_in_threadpool(store.get_owned, some, reviewer.team)
            for name, detection in zip(some, found, strict=True):
                if detection is None or detection.status in (Status.FAILED, Status.EXPIRED):
                    done.add(name)
                elif detection.status is Status.SUCCEEDED:
                    assignment = await self._take(reviewer, name)
                    if assignment is not None:
                        return done, (detection, assignment)
        return done, None

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
