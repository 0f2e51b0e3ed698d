# Generated from _async/reviews.py by generate.py.
"""Decisions of people about detections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from gamma_client._sync.connection import Connection
from gamma_client.calls import Call, SeenReview, cursor_of, one, seen_review
from gamma_client.models import (
    Assignment,
    AssignmentList,
    Decision,
    NextDetection,
    Review,
    ReviewEntry,
    ReviewList,
    ReviewResults,
)

_PAGE = 100


class Reviews:
    """Decisions of people about detections."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def decide(
        self,
        detection_id: str,
        decision: Decision,
        *,
        note: str = "",
        reviewer: str = "",
        seen: SeenReview | None = None,
    ) -> Review:
        """Decide about a finished detection. The same decision again changes nothing.

        Args:
            detection_id: its id.
            decision: `genuine`, `ai`, `manipulated` or `unsure`.
            note: reason, up to 2,000 characters.
            reviewer: display name of the person.
            seen: the decision that this one replaces, from `get`: if somebody else has decided
                since, the error is `review_conflict`. None: replace any.
        """
        headers = {} if seen is None else {"If-Match": seen.etag}
        body = {"decision": decision, "note": note, "reviewer": reviewer}
        call = Call(method="POST", path=one(detection_id, "review"), headers=headers, json=body)
        return self._connection.read(call, Review)

    def decide_many(
        self, ids: Sequence[str], decision: Decision, *, note: str = "", reviewer: str = ""
    ) -> list[ReviewEntry]:
        """Decide the same about up to 100 detections.

        Returns:
            For each the review, or the problem why there is none.
        """
        body = {"ids": list(ids), "decision": decision, "note": note, "reviewer": reviewer}
        call = Call(method="POST", path="/v1/reviews", json=body)
        return (self._connection.read(call, ReviewResults)).results

    def get(self, detection_id: str) -> SeenReview:
        """Return the current decision about a detection, and its history."""
        call = Call(method="GET", path=one(detection_id, "review"))
        return seen_review(self._connection.send(call))

    def withdraw(
        self, detection_id: str, *, reviewer: str = "", seen: SeenReview | None = None
    ) -> SeenReview:
        """Withdraw the current decision; the history stays. Arguments as in `decide`."""
        call = Call(
            method="DELETE",
            path=one(detection_id, "review"),
            params={"reviewer": reviewer or None},
            headers={} if seen is None else {"If-Match": seen.etag},
            once=True,  # somebody else may have decided meanwhile
        )
        return seen_review(self._connection.send(call))

    def list(
        self,
        *,
        since: datetime | None = None,
        decision: Decision | None = None,
        history: bool = False,
    ) -> Iterator[Review]:
        """Iterate over the reviews of your team, newest first; pages are read when needed.

        Args:
            since: decided at this time or later.
            decision: only this one.
            history: also those that were replaced or withdrawn.
        """
        cursor = None
        while True:
            params = {
                "since": since,
                "decision": decision,
                "history": history or None,
                "limit": _PAGE,
                "cursor": cursor,
            }
            call = Call(method="GET", path="/v1/reviews", params=params)
            page = self._connection.read(call, ReviewList)
            for review in page.reviews:
                yield review
            cursor = cursor_of(page.next)
            if cursor is None:
                return

    def export(
        self, target: str | os.PathLike[str], *, format: Literal["csv", "jsonl"] = "csv"
    ) -> None:
        """Save all reviews of your team in a file.

        Raises:
            OSError: If the file cannot be written.
        """
        call = Call(method="GET", path="/v1/reviews", params={"format": format})
        self._connection.save(call, target)

    def next(self, *, reviewer: str = "", after: str | None = None) -> NextDetection:
        """Open the oldest undecided detection that nobody else has open.

        Args:
            reviewer: display name; people with the same key are told apart by it.
            after: skip this detection and those before it.
        """
        params = {"reviewer": reviewer or None, "after": after}
        call = Call(method="POST", path="/v1/reviews/next", params=params)
        return self._connection.read(call, NextDetection)

    def assigned(self, *, reviewer: str = "", team: bool = False) -> Sequence[Assignment]:
        """Return what you have open.

        Args:
            reviewer: display name; people with the same key are told apart by it.
            team: what anybody of your team has open.
        """
        params = {"reviewer": reviewer or None, "team": team or None}
        call = Call(method="GET", path="/v1/reviews/assigned", params=params)
        return (self._connection.read(call, AssignmentList)).assignments

    def assign(
        self, detection_id: str, *, reviewer: str = "", takeover: bool = False
    ) -> Assignment:
        """Open a detection for you, or keep it open.

        Args:
            detection_id: its id.
            reviewer: display name; people with the same key are told apart by it.
            takeover: also if somebody else has it open.
        """
        params = {"reviewer": reviewer or None, "takeover": takeover or None}
        call = Call(method="PUT", path=one(detection_id, "assignment"), params=params)
        return self._connection.read(call, Assignment)

    def release(self, detection_id: str, *, reviewer: str = "") -> None:
        """Close a detection that you have open."""
        params = {"reviewer": reviewer or None}
        call = Call(method="DELETE", path=one(detection_id, "assignment"), params=params)
        self._connection.send(call)
