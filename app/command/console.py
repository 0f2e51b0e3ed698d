"""Terminal output of the `gamma` commands; text is never interpreted as markup."""

from __future__ import annotations

from rich.console import Console

_UNLIMITED = 10_000  # columns


def console(*, stderr: bool = False) -> Console:
    """A console that prints text literally; output to a file or pipe is not wrapped."""
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _UNLIMITED
    return made


def complain(who: str, text: object) -> None:
    """Print `who: text` to standard error, with `who` in red."""
    errors = console(stderr=True)
    errors.print(f"{who}:", style="red", end=" ")
    errors.print(str(text), soft_wrap=True)
