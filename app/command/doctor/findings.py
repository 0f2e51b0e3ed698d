"""Findings of `gamma doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"  # correct in some set-ups only
    WRONG = "wrong"  # the service cannot run like this, or would lose accepted work


@dataclass(frozen=True)
class Finding:
    """Result of one check; `advice` says how to fix it and is None if the state is `ok`."""

    subject: str
    state: State
    found: str
    advice: str | None = None


def ok(subject: str, found: str) -> Finding:
    """A finding with the state `ok`."""
    return Finding(subject, State.OK, found)


def note(subject: str, found: str, advice: str) -> Finding:
    """A finding with the state `note`."""
    return Finding(subject, State.NOTE, found, advice)


def wrong(subject: str, found: str, advice: str) -> Finding:
    """A finding with the state `wrong`."""
    return Finding(subject, State.WRONG, found, advice)
