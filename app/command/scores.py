"""The scores file from which an interrupted `gamma detect` resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_START = b'{"file": '  # of each line


class ScoresError(ValueError):
    """A file holds no scores, or scores of another model or view."""


class Scores:
    """A file of JSON lines, one per picture, each written before the next is computed.

    Lines of an earlier run are kept, except those of pictures without a score, which are tried
    again, and a truncated last line.
    """

    def __init__(self, file: Path, model_digest: str | None, view: str) -> None:
        """Read the file, or create it.

        Args:
            file: path of the file.
            model_digest: digest of the current model, see `ModelInfo.digest`.
            view: current view.

        Raises:
            ScoresError: If the file holds other lines, or scores of another model or view.
            OSError: If it cannot be read or written.
        """
        self.file = file
        self.done: set[str] = set()
        """Names of the pictures that have a score."""
        if file.exists() and not file.is_file():
            raise ScoresError(f"{file} is not a regular file")
        data = file.read_bytes() if file.exists() else b""
        end = data.rfind(b"\n") + 1
        if not data[end:].startswith(_START[: len(data) - end]):
            raise ScoresError(f"{file} does not hold scores; choose another file")
        kept = b""
        for number, line in enumerate(data[:end].splitlines(keepends=True), start=1):
            row = self._read(line, number)
            if "error" in row:
                continue
            for name, now in (("model_digest", model_digest), ("view", view)):
                if row.get(name) != now:
                    raise ScoresError(
                        f"{file} holds scores of {name} {row.get(name)}, not {now}; choose "
                        "another file"
                    )
            self.done.add(row["file"])
            kept += line
        if kept != data:
            partial = file.with_name(f".{file.name}.partial")
            partial.write_bytes(kept)
            partial.replace(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # fail early if it cannot be written

    def add(self, row: dict[str, Any]) -> None:
        """Append the row of a picture.

        Raises:
            OSError: If the file cannot be written.
        """
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(to_line(row) + "\n")

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if isinstance(row["file"], str):
                return dict(row)
        except (ValueError, KeyError, TypeError):
            pass
        raise ScoresError(f"{self.file}: line {number} is not a score; choose another file")


def to_line(row: dict[str, Any]) -> str:
    """A row as one line of JSON, without a line end.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    return json.dumps(row, allow_nan=False)
