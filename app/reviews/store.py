"""Reviews of a team: an append-only history of decisions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    delete,
    exists,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from app.contract.reviews import Decision, Facts, NewReview, Review
from app.reviews.assignments import release
from app.reviews.database import Database, ReviewsUnavailableError
from app.reviews.metrics import REVIEWS
from app.reviews.reviewer import Reviewer
from app.reviews.tables import UtcDateTime, reviews

_ATTEMPTS = 10  # to append, while others append to the same detection
_PURGED_ROWS = 1000  # in one transaction

T = TypeVar("T")


class ConflictError(Exception):
    """The detection has another newest entry than the reviewer saw.

    Attributes:
        newest: this entry; None: the detection has none.
    """

    def __init__(self, newest: Review | None) -> None:
        super().__init__("the review has changed")
        self.newest = newest


@dataclass(frozen=True)
class Filter:
    """Which reviews to list.

    Attributes:
        history: all entries; otherwise only the current decision of each detection.
        before: time and row of the entry after which the list goes on.
    """

    since: datetime | None = None
    decision: Decision | None = None
    history: bool = False
    before: tuple[datetime, int] | None = None


@dataclass(frozen=True)
class Row:
    """A review and the number of its row, for the cursor of a page."""

    number: int
    review: Review


@dataclass(frozen=True)
class Appended:
    """Result of a decision about one detection.

    Attributes:
        review: None: nothing is known about the detection.
        new: False: it was the current decision already.
    """

    review: Review | None
    new: bool


Seen = Callable[[Review | None], bool]
"""Whether the reviewer saw this newest entry of the detection."""


def current(newest: Review | None) -> Review | None:
    """The current decision of a detection, from the newest entry of its history."""
    return None if newest is None or newest.decision is Decision.WITHDRAWN else newest


class Reviews:
    """Reads and appends reviews. All methods raise `ReviewsUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def history(self, team: str, detection_id: str) -> list[Review]:
        """All entries of a detection, newest first."""
        return await self._database.call(
            lambda connection: _history(connection, team, detection_id)
        )

    async def current(self, team: str, detection_ids: Sequence[str]) -> dict[str, Review]:
        """Current decisions by detection."""
        found = await self._database.call(
            lambda connection: _newest(connection, team, detection_ids)
        )
        return {name: one for name, one in found.items() if current(one) is not None}

    async def page(self, team: str, chosen: Filter, limit: int) -> list[Row]:
        """Reviews of a team, newest first."""

        def read(connection: Connection) -> list[Row]:
            found = connection.execute(_listed(team, chosen).limit(limit)).mappings()
            return [Row(row["id"], _review(row)) for row in found]

        return await self._database.call(read)

    async def append(
        self,
        reviewer: Reviewer,
        facts: Mapping[str, Facts | None],
        given: NewReview,
        seen: Seen | None = None,
    ) -> dict[str, Appended]:
        """Append a decision to the histories of detections, and end their assignments.

        A decision that is the current one already, by the same reviewer and with the same note, is
        not repeated: the client did not get the answer to its first request.

        Args:
            reviewer: who decides.
            facts: by detection; None, or without a result: those of its newest entry.
            given: the decision.
            seen: checks the newest entry of each detection.

        Raises:
            ConflictError: If `seen` is false for the newest entry of a detection.
        """

        def work(connection: Connection) -> dict[str, Appended]:
            newest = _newest(connection, reviewer.team, list(facts))
            # Sorted, so that two such transactions cannot wait for each other.
            results = {
                name: _append(
                    connection, reviewer, name, newest.get(name), facts[name], given, seen
                )
                for name in sorted(facts)
            }
            release(connection, reviewer.team, list(facts))
            return results

        results = await self._retried(work)
        REVIEWS.labels(given.decision).inc(sum(one.new for one in results.values()))
        return results

    async def withdraw(
        self, reviewer: Reviewer, detection_id: str, seen: Seen | None = None
    ) -> list[Review]:
        """Take the current decision of a detection back, if there is one.

        Returns:
            Its history, newest first; empty if it was never reviewed.

        Raises:
            ConflictError: If `seen` is false for the newest entry.
        """

        def work(connection: Connection) -> tuple[list[Review], int]:
            history = _history(connection, reviewer.team, detection_id)
            last = history[0] if history else None
            if last is None or current(last) is None:
                return history, 0
            if seen is not None and not seen(last):
                raise ConflictError(last)
            new = _entry(reviewer, detection_id, last, last, Decision.WITHDRAWN, "")
            _insert(connection, reviewer.team, new)
            return [new, *history], 1

        history, new = await self._retried(work)
        REVIEWS.labels(Decision.WITHDRAWN).inc(new)
        return history

    async def erase(self, team: str, detection_ids: Sequence[str]) -> bool:
        """Erase notes and names in the history of detections; decisions and hashes stay.

        Returns:
            Whether any of them has a history.
        """

        def work(connection: Connection) -> bool:
            release(connection, team, detection_ids)
            erased = connection.execute(
                update(reviews)
                .where(reviews.c.team == team, reviews.c.detection_id.in_(detection_ids))
                .values(note=None, reviewer=None, key=None, erased_at=datetime.now(UTC))
            )
            return erased.rowcount > 0

        erased = await self._database.call(work)
        await self._database.compact()
        return erased

    async def purge(self, retention: timedelta) -> int:
        """Delete entries that are older than the retention time; returns their number."""
        oldest = datetime.now(UTC) - retention
        rows = select(reviews.c.id).where(reviews.c.created_at < oldest).limit(_PURGED_ROWS)

        def work(connection: Connection) -> int:
            return connection.execute(delete(reviews).where(reviews.c.id.in_(rows))).rowcount

        total = deleted = await self._database.call(work)
        while deleted == _PURGED_ROWS:
            deleted = await self._database.call(work)
            total += deleted
        await self._database.compact()
        return total

    async def _retried(self, work: Callable[[Connection], T]) -> T:
        """Run a transaction again if another one has appended the same version meanwhile."""
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(IntegrityError):
                return await self._database.call(work)
        raise ReviewsUnavailableError("too many reviewers at the same time")


def _append(
    connection: Connection,
    reviewer: Reviewer,
    detection_id: str,
    last: Review | None,
    facts: Facts | None,
    given: NewReview,
    seen: Seen | None,
) -> Appended:
    if last is None and facts is None:
        return Appended(None, new=False)
    if last is not None and _repeats(last, reviewer, given):
        return Appended(last, new=False)
    if seen is not None and not seen(last):
        raise ConflictError(last)
    if last is not None and (facts is None or facts.ai_probability is None):
        facts = last  # the detection has expired since
    assert facts is not None  # noqa: S101 - one of the two exists
    review = _entry(reviewer, detection_id, last, facts, given.decision, given.note)
    _insert(connection, reviewer.team, review)
    return Appended(review, new=True)


def _repeats(last: Review, reviewer: Reviewer, given: NewReview) -> bool:
    repeated = (given.decision, given.note or None, reviewer.name or None, reviewer.key)
    return (last.decision, last.note, last.reviewer, last.key) == repeated


def _entry(
    reviewer: Reviewer,
    detection_id: str,
    last: Review | None,
    facts: Facts,
    decision: Decision,
    note: str,
) -> Review:
    """The entry that follows the newest one of a detection."""
    return Review(
        **{name: getattr(facts, name) for name in Facts.model_fields},
        detection_id=detection_id,
        version=1 if last is None else last.version + 1,
        decision=decision,
        note=note or None,
        reviewer=reviewer.name or None,
        key=reviewer.key,
        created_at=datetime.now(UTC),
    )


def _insert(connection: Connection, team: str, review: Review) -> None:
    """Insert an entry.

    Raises:
        IntegrityError: If the detection has an entry with this version already.
    """
    documents = review.model_dump(mode="json", include={"thresholds", "model"})
    values = {**review.model_dump(), **documents, "team": team}
    connection.execute(insert(reviews).values(values))


def _history(connection: Connection, team: str, detection_id: str) -> list[Review]:
    query = (
        select(reviews)
        .where(reviews.c.team == team, reviews.c.detection_id == detection_id)
        .order_by(reviews.c.version.desc())
    )
    return [_review(row) for row in connection.execute(query).mappings()]


def _newest(connection: Connection, team: str, detection_ids: Sequence[str]) -> dict[str, Review]:
    """The newest entry of each detection that has one, withdrawals included."""
    query = select(reviews).where(
        reviews.c.team == team, reviews.c.detection_id.in_(detection_ids), _is_newest()
    )
    return {row["detection_id"]: _review(row) for row in connection.execute(query).mappings()}


def _is_newest() -> ColumnElement[bool]:
    later = reviews.alias("later")
    return ~exists().where(
        later.c.team == reviews.c.team,
        later.c.detection_id == reviews.c.detection_id,
        later.c.version > reviews.c.version,
    )


def _listed(team: str, chosen: Filter) -> Select[Any]:
    query = select(reviews).where(reviews.c.team == team)
    if not chosen.history:
        query = query.where(_is_newest(), reviews.c.decision != Decision.WITHDRAWN)
    if chosen.decision is not None:
        query = query.where(reviews.c.decision == chosen.decision)
    if chosen.since is not None:
        query = query.where(reviews.c.created_at >= chosen.since)
    if chosen.before is not None:
        moment, number = chosen.before
        place = tuple_(reviews.c.created_at, reviews.c.id)
        query = query.where(place < tuple_(literal(moment, UtcDateTime), number))
    return query.order_by(reviews.c.created_at.desc(), reviews.c.id.desc())


def _review(row: RowMapping) -> Review:
    return Review.model_validate({name: row[name] for name in Review.model_fields})
