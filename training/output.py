"""Output files that are whole or not there, what is said on a terminal, and progress."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_WIDE = 10_000  # columns


@contextmanager
def writing(file: Path) -> Iterator[Path]:
    """Give a temporary name beside `file`; it becomes `file` if the block ends well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial{file.suffix}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(text: str, file: Path) -> None:
    """Write a text file whole or not at all."""
    with writing(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return one JSON text with a line break behind it; NaN and infinity, no JSON, become null."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return value


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console that prints names and error texts as they are; colours are given as styles.

    What goes to no terminal is neither wrapped nor cut.
    """
    made = Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _WIDE
    return made


def complain(error: Exception) -> None:
    """Print what went wrong to standard error, in one line."""
    console(stderr=True, soft_wrap=True).print(f"gamma-train: {error}", style="red")


def progress_bar(on: Console | None = None, *, unit: str = "", transient: bool = False) -> Progress:
    """Return a bar that says how many are done and when the rest will be.

    Args:
        on: where it is shown; standard error if not given.
        unit: what is counted, shown after the numbers.
        transient: it leaves nothing when it ends.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *([TextColumn(unit, markup=False)] if unit else []),
        TimeRemainingColumn(),
        console=on or console(stderr=True),
        transient=transient,
    )
