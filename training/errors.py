"""The base of the errors that a user can fix."""

from __future__ import annotations


class UserError(ValueError):
    """A command cannot continue; the message names the file or setting to change.

    `gamma-train` prints it in one line and exits with code 1.
    """
