"""Runs of the data tools: a killed one continues, and ends with the same files."""

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
    """A folder holds the output of a run with other settings."""


class SkippedError(UserError):
    """An item cannot be made; the message says why."""


class Entry(BaseModel):
    """An item that is done: its rows, or why it has none."""

    item: int
    rows: list[Row] = []
    skipped: str | None = None


@dataclass(frozen=True)
class Report:
    """What a run left behind."""

    manifest: Path
    rows: int
    skipped: list[str]
    """Why items were left out, each reason once."""


def done(folder: Path, settings: dict[str, JsonValue]) -> dict[int, Entry]:
    """The items that an earlier run with the same settings has made; what it left out is not one.

    The journal holds the settings in its first line and one item in each of the others. A last
    line that was cut off by the end of that run does not count.

    Raises:
        RunMismatchError: the settings were others, or the journal is damaged.
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
            f"{folder} holds a run with another {', '.join(changed)}; choose another folder"
        )
    return {entry.item: entry for entry in entries if entry.skipped is None}


def carry_out(
    folder: Path,
    settings: dict[str, JsonValue],
    count: int,
    make: Callable[[int], list[Row]],
    *,
    workers: int,
    title: str,
) -> Report:
    """Make items 0 to count - 1 that are not done yet, then write the manifest of them all.

    Args:
        folder: where the files, the journal and `manifest.jsonl` lie.
        settings: what the files depend on beside the item's number.
        count: number of items; more than in an earlier run adds to it.
        make: writes the files of an item and returns their rows, always the same; it is called
            in threads and may raise `SkippedError`, `PictureUnreadableError` or
            `FileNotFoundError`: the item is left out, and tried again by the next run.
        workers: number of threads.
        title: shown with the progress.

    Raises:
        RunMismatchError: the folder holds another run.
        OSError: a file cannot be written; what is done stays done.
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
    """What a file holds, without a last line that does not end; nothing if there is no file."""
    data = file.read_bytes() if file.exists() else b""
    return data[: data.rfind(b"\n") + 1]
