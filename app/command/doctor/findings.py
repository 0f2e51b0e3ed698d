"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # right in some set-ups only
    WRONG = "wrong"  # the service cannot run like this, or would lose accepted work


@dataclass(frozen=True)
class Finding:
    """One subject; `advice` says what to do, where that is needed."""

    subject: str
    state: State
    found: str
    advice: str | None = None


def ok(subject: str, found: str) -> Finding:
    """As it should be."""
    return Finding(subject, State.OK, found)


def note(subject: str, found: str, advice: str) -> Finding:
    """Right in some set-ups only."""
    return Finding(subject, State.NOTE, found, advice)


def wrong(subject: str, found: str, advice: str) -> Finding:
    """To be mended."""
    return Finding(subject, State.WRONG, found, advice)
