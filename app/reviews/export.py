"""Reviews as files, and the cursor of a page."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.contract.reviews import Review
from app.contract.schemas import ModelInfo
from app.contract.spreadsheet import as_text
from app.reviews.store import Filter, Reviews, Row
from pictures.findings import Thresholds

CURSOR = r"^[0-9]{16}-[0-9]{1,18}$"
"""Pattern of a cursor: µs since epoch and row."""

_PAGE = 500  # reviews in one read
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PARTS = {
    "thresholds": [field.name for field in fields(Thresholds)],
    "model": list(ModelInfo.model_fields),
}
_TEXTS = ("note", "reviewer", "key")


def cursor(row: Row) -> str:
    """The cursor of the page after a row."""
    return f"{(row.review.created_at - _EPOCH) // _MICROSECOND:016d}-{row.number}"


def place(given: str) -> tuple[datetime, int]:
    """Time and row of a cursor."""
    moment, _, number = given.partition("-")
    return _EPOCH + int(moment) * _MICROSECOND, int(number)


async def pages(
    reviews: Reviews, team: str, chosen: Filter, limit: int | None
) -> AsyncIterator[list[Review]]:
    """Reviews of a team in pages, at least one; at most `limit` reviews.

    No transaction is open between the pages, so a slow reader holds no connection.
    """
    left = sys.maxsize if limit is None else limit
    while True:
        size = min(left, _PAGE)
        rows = await reviews.page(team, chosen, size)
        yield [row.review for row in rows]
        left -= len(rows)
        if len(rows) < size or not left:
            return
        chosen = replace(chosen, before=place(cursor(rows[-1])))


async def as_jsonl(first: list[Review], others: AsyncIterator[list[Review]]) -> AsyncIterator[str]:
    """JSON lines: a review in each."""
    yield _lines(first)
    async for page in others:
        yield _lines(page)


async def as_csv(first: list[Review], others: AsyncIterator[list[Review]]) -> AsyncIterator[str]:
    """Comma-separated values with a line of names; parts of a field have columns of their own."""
    names = [
        f"{name}_{part}" if part else name
        for name in Review.model_fields
        for part in _PARTS.get(name, [""])
    ]
    yield _rows([names])
    yield _rows(map(_cells, first))
    async for page in others:
        yield _rows(map(_cells, page))


def _lines(page: list[Review]) -> str:
    return "".join(f"{review.model_dump_json()}\n" for review in page)


def _rows(rows: Iterable[list[Any]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


def _cells(review: Review) -> list[Any]:
    cells: list[Any] = []
    for name, value in review.model_dump(mode="json").items():
        if name in _PARTS:
            cells += [(value or {}).get(part) for part in _PARTS[name]]
        elif name in _TEXTS and value:
            cells.append(as_text(value))
        else:
            cells.append(value)
    return cells
