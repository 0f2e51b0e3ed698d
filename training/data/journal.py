"""Resumable runs of the data tools: an interrupted run continues and gives the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from training.data import manifest
from training.data.manifest import Row
from training.data.workers import in_order
from training.errors import UserError
from training.output import progress_bar

_NAME = "journal.jsonl"


class RunMismatchError(UserError):
    """A folder contains the output of a run with other settings."""


class SkippedError(UserError):
    """An item cannot be made; the message says why."""


class Entry(BaseModel):
    """A finished item: its rows, or the reason for none."""

    item: int
    rows: list[Row] = []
    skipped: str | None = None


@dataclass(frozen=True)
class Report:
    """Result of a run."""

    manifest: Path
    rows: int
    skipped: list[str]
    """Reasons for skipped items, without repeats."""


def done(folder: Path, settings: dict[str, JsonValue]) -> dict[int, Entry]:
    """Return the items made by an earlier run with the same settings, without skipped ones.

    The first line of the journal contains the settings, each other line one item. An incomplete
    last line is ignored.

    Raises:
        RunMismatchError: The settings differ, or the journal is damaged.
    """
    file = folder / _NAME
    lines = _whole_lines(file).splitlines()
    if not lines:
        return {}
    try:
        before = json.loads(lines[0])
        entries = [Entry.model_validate_json(line) for line in lines[1:]]
    except (ValidationError, ValueError) as error:
        raise RunMismatchError(f"{file} is damaged: {error}") from error
    if before != settings:
        changed = sorted(k for k in {**before, **settings} if before.get(k) != settings.get(k))
        raise RunMismatchError(
            f"{folder} contains a run with another {', '.join(changed)}; choose another folder"
        )
    return {entry.item: entry for entry in entries if entry.skipped is None}


def run_items(
    folder: Path,
    settings: dict[str, JsonValue],
    count: int,
    make: Callable[[int], list[Row]],
    *,
    workers: int,
    title: str,
) -> Report:
    """Make the items 0 to count - 1 that are not done yet, then write the manifest of all.

    Args:
        folder: Folder of the files, the journal and `manifest.jsonl`.
        settings: Everything besides the item number that determines the files.
        count: Number of items; a larger number extends an earlier run.
        make: Writes the files of an item and returns their rows, deterministically. It runs in
            threads. On `SkippedError`, `PictureUnreadableError` or `FileNotFoundError` the item is
            skipped, and tried again in the next run.
        workers: Number of threads.
        title: Title of the progress bar.

    Raises:
        RunMismatchError: The folder contains another run.
        OSError: A file cannot be written; finished items are kept.
    """
    entries = done(folder, settings)
    file = folder / _NAME
    folder.mkdir(parents=True, exist_ok=True)
    whole = len(_whole_lines(file))
    with file.open("ab") as journal:
        journal.truncate(whole)
        if whole == 0:
            journal.write(json.dumps(settings).encode() + b"\n")

    def attempt(item: int) -> Entry:
        try:
            return Entry(item=item, rows=make(item))
        except (SkippedError, manifest.PictureUnreadableError, FileNotFoundError) as error:
            return Entry(item=item, skipped=str(error))

    todo = [item for item in range(count) if item not in entries]
    with file.open("a", encoding="utf-8") as lines, progress_bar() as bar:
        results = in_order(attempt, todo, workers)
        for entry in bar.track(results, total=len(todo), description=title):
            lines.write(entry.model_dump_json(exclude_none=True) + "\n")
            lines.flush()
            entries[entry.item] = entry
    wanted = [entries[item] for item in range(count)]
    skipped = dict.fromkeys(entry.skipped for entry in wanted if entry.skipped is not None)
    target = folder / "manifest.jsonl"
    rows = manifest.write((row for entry in wanted for row in entry.rows), target)
    return Report(target, rows, list(skipped))


def _whole_lines(file: Path) -> bytes:
    """Return the complete lines of a file; empty if it does not exist."""
    data = file.read_bytes() if file.exists() else b""
    return data[: data.rfind(b"\n") + 1]
