"""Paged lists of detections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Query

from app.contract import records
from app.contract.schemas import ID_PATTERN, Detection, ErrorCode, Status
from app.contract.store import Store
from app.http.moments import Moment
from app.http.problems import ServiceError
from pictures.findings import Verdict
from pictures.origin import Says

MAX_NAMED = 100
"""Maximum number of ids in a request, and of detections in a page."""

_MAX_PAGES_READ = 10  # for one page of filtered results


@dataclass(frozen=True)
class Page:
    """A page of an owner's detections, and the cursor of the next page, if there is one."""

    detections: list[Detection]
    cursor: str | None


@dataclass(frozen=True)
class Filter:
    """Which detections of an owner are meant; each condition is optional.

    There is no index but that of time, so other conditions are checked on the records.
    """

    status: Annotated[Status | None, Query(description="only detections with this status")] = None
    verdict: Annotated[Verdict | None, Query(description="only those with this verdict")] = None
    manipulated: Annotated[
        bool | None, Query(description="only those whose `manipulated` is this")
    ] = None
    min_probability: Annotated[
        float | None, Query(ge=0, le=1, description="only those with this `ai_probability` or more")
    ] = None
    ref_id: Annotated[
        str | None, Query(min_length=1, max_length=200, description="only those with this `ref_id`")
    ] = None
    says: Annotated[
        Says | None,
        Query(description="only those whose file says so, see `provenance.statements`"),
    ] = None
    created_after: Annotated[
        Moment | None, Query(description="only those created at this time or later")
    ] = None
    created_before: Annotated[
        Moment | None, Query(description="only those created before this time")
    ] = None

    @property
    def reads_records(self) -> bool:
        """Whether a condition is checked on the records."""
        times = ("created_after", "created_before")
        return any(value is not None for name, value in vars(self).items() if name not in times)

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return any(value is not None for value in vars(self).values())

    def matches(self, detection: Detection) -> bool:
        """Whether a record meets all conditions but those of time."""
        score = detection.ai_probability
        least = self.min_probability
        return (
            self.status in (None, detection.status)
            and self.verdict in (None, detection.verdict)
            and self.manipulated in (None, detection.manipulated)
            and (least is None or (score is not None and score >= least))
            and self.ref_id in (None, detection.ref_id)
            and (self.says is None or detection.says(self.says))
        )


NO_FILTER = Filter()
TheFilter = Annotated[Filter, Depends()]


def named(ids: Sequence[str]) -> list[str]:
    """Ids of a query parameter that is repeated or separated by commas, each once.

    Raises:
        ServiceError: If there are too many, or one is invalid: `malformed_request`.
    """
    names = list(dict.fromkeys(name for part in ids for name in part.split(",") if name))
    if len(names) > MAX_NAMED:
        raise ServiceError(ErrorCode.MALFORMED_REQUEST, f"The limit is {MAX_NAMED} ids.")
    if not all(re.fullmatch(ID_PATTERN, name) for name in names):
        raise ServiceError(ErrorCode.MALFORMED_REQUEST, "An id has visible ASCII characters only.")
    return names


def newest(
    store: Store, owner: str, limit: int, cursor: str | None, chosen: Filter = NO_FILTER
) -> Page:
    """List detections of an owner, newest first; two round trips if only times are chosen.

    Args:
        store: store of the detections.
        owner: name of the caller.
        limit: maximum number of detections.
        cursor: cursor of the previous page; new and deleted detections do not shift pages.
        chosen: return only these. A limited number of records is read, so that a page may be short
            or empty although more follow.
    """
    kept: list[Detection] = []
    start, end = "+", "-"
    if chosen.created_before is not None:
        start = f"({records.member(chosen.created_before)}"
    if chosen.created_after is not None:
        end = f"[{records.member(chosen.created_after)}"
    for _ in range(_MAX_PAGES_READ if chosen.reads_records else 1):
        if cursor is not None:
            start = f"({cursor}"
        found = store.redis.zrange(
            records.index_key(owner), start, end, desc=True, bylex=True, offset=0, num=limit + 1
        )
        members = [member.decode() for member in cast(list[bytes], found)]
        page = members[:limit]
        detections = store.get_owned([records.id_of(member) for member in page], owner)
        for number, (member, one) in enumerate(zip(page, detections, strict=True), start=1):
            cursor = member
            if one is not None and chosen.matches(one):
                kept.append(one)
            if len(kept) == limit:
                return Page(kept, cursor if number < len(members) else None)
        if len(members) <= limit:
            return Page(kept, None)
    return Page(kept, cursor)
