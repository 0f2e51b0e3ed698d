"""Paged lists of detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from app.contract import records
from app.contract.schemas import Detection
from app.contract.store import Store
from pictures.origin import Says

_MAX_PAGES_READ = 10  # for one page of filtered results


@dataclass(frozen=True)
class Page:
    """A page of an owner's detections, and the cursor of the next page, if there is one."""

    detections: list[Detection]
    cursor: str | None


def newest(
    store: Store, owner: str, limit: int, cursor: str | None, says: Says | None = None
) -> Page:
    """List detections of an owner, newest first; without `says`, in two round trips.

    Args:
        store: store of the detections.
        owner: name of the caller.
        limit: maximum number of detections.
        cursor: cursor of the previous page; new and deleted detections do not shift pages.
        says: return only detections whose file says so. There is no index for it: a limited
            number of records is read, so that a page may be short or empty although more follow.
    """
    kept: list[Detection] = []
    for _ in range(1 if says is None else _MAX_PAGES_READ):
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
