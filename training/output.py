"""Output files that are whole or not there, and progress with an estimate of the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
        partial.write_text(text, encoding="utf-8")


def progress_bar(console: Console) -> Progress:
    """Return a bar that says how many are done and when the rest will be."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
