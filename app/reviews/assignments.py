"""Assignments: who has which detection open, so that colleagues do not open the same ones.

An assignment is a soft lock. It expires by itself, a colleague can take it over, and it does not
stop anyone from deciding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.contract.reviews import Assignment
from app.reviews.database import Database, ReviewsUnavailableError
from app.reviews.reviewer import Reviewer
from app.reviews.tables import assignments

_ATTEMPTS = 10


class TakenError(Exception):
    """Somebody else has the detection open.

    Attributes:
        assignment: who, and until when.
    """

    def __init__(self, assignment: Assignment) -> None:
        super().__init__("somebody else has the detection open")
        self.assignment = assignment


class Assignments:
    """Takes and releases detections.

    All methods raise `ReviewsUnavailableError`.

    Args:
        database: where they are stored.
        lifetime: how long an assignment lasts, s.
    """

    def __init__(self, database: Database, lifetime: int) -> None:
        self._database = database
        self._lifetime = timedelta(seconds=lifetime)

    async def take(
        self, reviewer: Reviewer, detection_id: str, *, takeover: bool = False
    ) -> Assignment:
        """Assign a detection to a reviewer, or renew the assignment.

        Args:
            reviewer: who opens it.
            detection_id: which.
            takeover: also if somebody else has it open.

        Raises:
            TakenError: If somebody else has it open, and `takeover` is false.
        """
        conditions = [_of(reviewer.team, [detection_id])]
        if not takeover:
            conditions.append(or_(_ended(), _held_by(reviewer)))

        def work(connection: Connection) -> Assignment:
            new = {
                "key": reviewer.key,
                "reviewer": reviewer.name,
                "expires_at": datetime.now(UTC) + self._lifetime,
            }
            changed = connection.execute(update(assignments).where(*conditions).values(new))
            if changed.rowcount == 0:
                place = {"team": reviewer.team, "detection_id": detection_id}
                connection.execute(insert(assignments).values({**place, **new}))
            return _assignment({"detection_id": detection_id, **new})

        for _ in range(_ATTEMPTS):
            try:
                return await self._database.call(work)
            except IntegrityError:  # somebody else has it
                others = await self.of(reviewer.team, [detection_id])
                if others and not takeover:
                    raise TakenError(others[0]) from None
        raise ReviewsUnavailableError("too many reviewers at the same time")

    async def release(self, reviewer: Reviewer, detection_id: str) -> None:
        """End an assignment of the reviewer, if there is one."""
        place = _of(reviewer.team, [detection_id])
        await self._database.call(
            lambda connection: connection.execute(
                delete(assignments).where(place, _held_by(reviewer))
            )
        )

    async def of(self, team: str, detection_ids: Sequence[str]) -> list[Assignment]:
        """Current assignments of detections."""
        return await self._list(_of(team, detection_ids))

    async def held_by(self, reviewer: Reviewer) -> list[Assignment]:
        """Current assignments of a reviewer, the one that ends last first."""
        return await self._list(assignments.c.team == reviewer.team, _held_by(reviewer))

    async def of_team(self, team: str) -> list[Assignment]:
        """Current assignments of everybody in a team, the one that ends last first."""
        return await self._list(assignments.c.team == team)

    async def purge(self) -> None:
        """Delete assignments that have ended."""
        await self._database.call(
            lambda connection: connection.execute(delete(assignments).where(_ended()))
        )

    async def _list(self, *conditions: ColumnElement[bool]) -> list[Assignment]:
        query = (
            select(assignments)
            .where(*conditions, ~_ended())
            .order_by(assignments.c.expires_at.desc())
        )
        return await self._database.call(
            lambda connection: [_assignment(row) for row in connection.execute(query).mappings()]
        )


def release(connection: Connection, team: str, detection_ids: Sequence[str]) -> None:
    """End the assignments of detections, whoever has them."""
    connection.execute(delete(assignments).where(_of(team, detection_ids)))


def _of(team: str, detection_ids: Sequence[str]) -> ColumnElement[bool]:
    return and_(assignments.c.team == team, assignments.c.detection_id.in_(detection_ids))


def _held_by(reviewer: Reviewer) -> ColumnElement[bool]:
    return and_(assignments.c.key == reviewer.key, assignments.c.reviewer == reviewer.name)


def _ended() -> ColumnElement[bool]:
    return assignments.c.expires_at <= datetime.now(UTC)


def _assignment(row: Mapping[Any, Any]) -> Assignment:
    return Assignment(
        detection_id=row["detection_id"],
        reviewer=row["reviewer"] or None,
        key=row["key"],
        expires_at=row["expires_at"],
    )
