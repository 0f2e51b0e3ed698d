"""Lists of detections, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from app.contract import records
from app.contract.provenance import Says
from app.contract.schemas import Detection
from app.contract.store import Store

_PAGES_LOOKED_THROUGH = 10  # for one page of those whose files say something


@dataclass(frozen=True)
class Page:
    """Detections of one owner, and the cursor that continues after them, if there are more."""

    detections: list[Detection]
    cursor: str | None


def newest(
    store: Store, owner: str, limit: int, cursor: str | None, says: Says | None = None
) -> Page:
    """Detections of an owner, newest first, in two round trips.

    Args:
        store: has them.
        owner: whose.
        limit: most detections.
        cursor: of the page before this one. What comes or goes meanwhile moves nothing.
        says: those alone whose file says so. They have no index: records are looked through,
            so many for one page that it may be short, or empty, with others to follow.
    """
    kept: list[Detection] = []
    for _ in range(1 if says is None else _PAGES_LOOKED_THROUGH):
        start = "+" if cursor is None else f"({cursor}"
        found = store.redis.zrange(
            records.index_key(owner), start, "-", desc=True, bylex=True, offset=0, num=limit + 1
        )
        members = [member.decode() for member in cast(list[bytes], found)]
        page = members[:limit]
        detections = store.get_owned([records.id_of(member) for member in page], owner)
        for number, (member, one) in enumerate(zip(page, detections, strict=True), start=1):
            cursor = member
            if one is not None and (says is None or one.says(says)):
                kept.append(one)
            if len(kept) == limit:
                return Page(kept, cursor if number < len(members) else None)
        if len(members) <= limit:
            return Page(kept, None)
    return Page(kept, cursor)
