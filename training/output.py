"""Atomic output files, terminal output and progress bars."""

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
    """Yield a temporary path next to `file`; it is renamed to `file` if the block succeeds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial{file.suffix}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(text: str, file: Path) -> None:
    """Write a text file atomically."""
    with writing(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON with a final newline; NaN and infinity become null."""
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
    """Return a console that prints text without markup, emoji or highlighting.

    Output that does not go to a terminal is neither wrapped nor truncated.
    """
    made = Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _WIDE
    return made


def complain(error: Exception) -> None:
    """Print an error to standard error, in one line."""
    console(stderr=True, soft_wrap=True).print(f"gamma-train: {error}", style="red")


def progress_bar(on: Console | None = None, *, unit: str = "", transient: bool = False) -> Progress:
    """Return a progress bar with count and remaining time.

    Args:
        on: Console; standard error by default.
        unit: Unit of the count, shown after it.
        transient: Whether to remove the bar at the end.
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
