"""The file of scores that an interrupted `gamma detect` goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_START = b'{"file": '  # of each line


class ScoresError(ValueError):
    """A file is not one of scores, or its scores cannot be compared with new ones."""


class Scores:
    """A file of JSON lines, one a picture; each is on the disk before the next is computed.

    What an earlier run wrote stays, except the lines of pictures that had no score, which are
    tried again, and a last line that was cut off.
    """

    def __init__(self, file: Path, model_digest: str | None, view: str) -> None:
        """Read what is there.

        Args:
            file: made if it is not there, else gone on with.
            model_digest: of the model that scores now, see `ModelInfo.digest`.
            view: how it looks at the pictures now.

        Raises:
            ScoresError: it holds other lines, or scores of another model or view.
            OSError: it cannot be read or written.
        """
        self.file = file
        self.done: set[str] = set()
        """Pictures that have a score, by their names in the file."""
        if file.exists() and not file.is_file():
            raise ScoresError(f"{file} is no file that scores can be added to")
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
        file.touch()  # fails now if it cannot be written

    def add(self, row: dict[str, Any]) -> None:
        """Add a picture.

        Raises:
            OSError: the file cannot be written.
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
    """A row as JSON on one line, without its end; it may hold no number that JSON has not."""
    return json.dumps(row, allow_nan=False)
