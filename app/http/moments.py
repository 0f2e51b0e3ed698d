"""Times in the query of a request."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator


def _date_first(given: str) -> str:
    if not re.match(r"\d{4}-\d\d-\d\d", given):  # pydantic would take numbers for times too
        raise ValueError("must begin with a date, such as 2026-01-31T12:00:00Z")
    return given


def _utc(given: datetime) -> datetime:
    try:
        return given.astimezone(UTC)
    except OverflowError:  # in the first or last year
        return (datetime.min if given.year == 1 else datetime.max).replace(tzinfo=UTC)


Moment = Annotated[AwareDatetime, BeforeValidator(_date_first), AfterValidator(_utc)]
"""A time with zone, such as 2026-01-31T12:00:00Z; in UTC."""
