"""Who reviews."""

from __future__ import annotations

from dataclasses import dataclass

from app.contract.reviews import Assignment


@dataclass(frozen=True)
class Reviewer:
    """A person of a team.

    Attributes:
        team: owner of the detections.
        key: name of the key.
        name: display name; may be empty.
    """

    team: str
    key: str
    name: str = ""

    def holds(self, assignment: Assignment) -> bool:
        """Whether this person has the assignment."""
        return (assignment.key, assignment.reviewer or "") == (self.key, self.name)
