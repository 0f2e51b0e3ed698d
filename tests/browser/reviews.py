"""A stand-in for the service's reviews, so that many decisions are quick."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route

LOCKED = "2036-01-01T00:00:00Z"
"""When assignments expire."""

_TIME = "2026-01-02T12:00:{:02d}.{:06d}Z"


class MadeReviews:
    """Answers for the calls about reviews; `history` has all entries by detection, newest first."""

    def __init__(self, page: Page, records: Mapping[str, dict]) -> None:
        self.lock = 300  # s that an assignment lasts
        self.history: dict[str, list[dict]] = {}
        self.assigned: dict[str, dict] = {}
        self.renewals = 0  # assignments that were asked for, and again while they last
        self._records = records
        self._entries = 0
        page.route("**/v1/reviews?**", self._list)
        page.route("**/v1/reviews/assigned?**", self._assigned)
        page.route("**/v1/reviews/next?**", self._next)
        page.route(re.compile("/v1/detections/[^/]*/review"), self.review)
        page.route("**/v1/detections/*/assignment?**", self._assignment)

    def append(self, name: str, decision: str, note: str = "", **who: str | None) -> dict:
        """Add an entry to the history of a detection."""
        self._entries += 1
        entries = self.history.setdefault(name, [])
        made = {
            "detection_id": name,
            "version": len(entries) + 1,
            "decision": decision,
            "note": note or None,
            "reviewer": who.get("reviewer") or None,
            "key": who.get("key") or "own",
            "created_at": _TIME.format(*divmod(self._entries, 1_000_000)),
            "erased_at": None,
            "sha256": self._records[name]["image"]["sha256"],
        }
        entries.insert(0, made)
        self.assigned.pop(name, None)
        return made

    def decisions(self) -> dict[str, str]:
        """Current decisions by detection."""
        newest = {name: entries[0]["decision"] for name, entries in self.history.items()}
        return {name: one for name, one in newest.items() if one != "withdrawn"}

    def review(self, route: Route) -> None:
        name = route.request.url.split("/")[-2]
        entries = self.history.get(name, [])
        method, given = route.request.method, route.request.headers
        if method != "GET" and not self._met(given, entries):
            body = {"title": "Decided meanwhile", "detail": "", "code": "review_conflict"}
            route.fulfill(status=412, json=body)
        elif method == "POST":
            body = route.request.post_data_json
            made = self.append(name, body["decision"], body["note"], reviewer=body["reviewer"])
            route.fulfill(status=201, json=made, headers={"ETag": f'"{made["version"]}"'})
        else:
            if method == "DELETE" and self._decided(entries):
                self.append(name, "withdrawn")
            entries = self.history.get(name, [])
            state = {
                "detection_id": name,
                "review": entries[0] if self._decided(entries) else None,
                "history": entries,
                "assignment": self.assigned.get(name),
            }
            route.fulfill(json=state, headers={"ETag": f'"{len(entries)}"'})

    @staticmethod
    def _decided(entries: list[dict]) -> bool:
        return bool(entries) and entries[0]["decision"] != "withdrawn"

    def _met(self, given: dict[str, str], entries: list[dict]) -> bool:
        if given.get("if-none-match") == "*":
            return not self._decided(entries)
        return given.get("if-match") in (None, f'"{len(entries)}"')

    def _list(self, route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        names = query["ids"][0].split(",") if "ids" in query else list(self.history)
        current = [self.history[n][0] for n in names if self._decided(self.history.get(n, []))]
        if "ids" not in query:
            current = [one for entries in self.history.values() for one in entries]
        page = sorted(current, key=lambda one: one["created_at"], reverse=True)
        assignments = [one for name, one in self.assigned.items() if name in names]
        body = {"reviews": page, "next": None, "missing": [], "assignments": assignments}
        route.fulfill(json=body)

    def _assigned(self, route: Route) -> None:
        everybody = "team=true" in route.request.url
        found = [one for one in self.assigned.values() if everybody or one["key"] == "own"]
        route.fulfill(json={"assignments": found})

    def _next(self, route: Route) -> None:
        free = [n for n in self._records if n not in self.decisions() and n not in self.assigned]
        if not free:
            route.fulfill(json={"detection": None, "assignment": None})
            return
        route.fulfill(
            json={"detection": self._records[free[0]], "assignment": self.assign(free[0])}
        )

    def assign(self, name: str, key: str = "own") -> dict:
        """Let somebody have a detection open."""
        made = {"detection_id": name, "reviewer": None, "key": key}
        self.assigned[name] = made | {"expires_at": LOCKED}
        return self.assigned[name]

    def _assignment(self, route: Route) -> None:
        name = route.request.url.split("/")[-2]
        if route.request.method == "DELETE":
            self.assigned.pop(name, None)
            route.fulfill(status=204)
        else:
            self.renewals += 1
            answered = datetime.fromisoformat(LOCKED) - timedelta(seconds=self.lock)
            date = format_datetime(answered, usegmt=True)
            route.fulfill(json=self.assign(name), headers={"Date": date})
