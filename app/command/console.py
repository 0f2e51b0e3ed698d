"""What the `gamma` commands say on a terminal: text as it is, never read as markup."""

from __future__ import annotations

from rich.console import Console

_WIDE = 10_000  # columns


def console(*, stderr: bool = False) -> Console:
    """A console that prints names and error texts as they are; colours are given as styles.

    What goes to no terminal is neither wrapped nor cut.
    """
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _WIDE
    return made


def complain(who: str, text: object) -> None:
    """Print one line to standard error: whose trouble it is in red, then what it is."""
    errors = console(stderr=True)
    errors.print(f"{who}:", style="red", end=" ")
    errors.print(str(text), soft_wrap=True)
