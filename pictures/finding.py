"""Search for picture files in folders, by suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"),
    )
)
"""Suffixes of picture files, lower case."""

_APPLE_DOUBLE = "._"  # prefix of macOS's metadata files on other file systems
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NAMED = 10  # file names per reason in a summary


class Reason(StrEnum):
    """Why a file or folder was left out."""

    NOT_A_PICTURE = "not a picture by its name"
    SEARCHED = "link to a folder that is searched anyway"
    SPECIAL = "neither a file nor a folder"
    UNREADABLE = "cannot be read"
    """Also a broken link, whose target may have been a picture or a folder of pictures."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not among the pictures."""

    path: Path
    reason: Reason
    detail: str = ""
    """The operating system's message, if any."""


@dataclass
class Found:
    """Result of a search, each list sorted by path."""

    pictures: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def failures(self) -> list[LeftOut]:
        """Files and folders that cannot be read and may be or hold pictures."""
        return [one for one in self.left_out if one.reason is Reason.UNREADABLE]

    @property
    def passed_over(self) -> list[LeftOut]:
        """Files and folders left out for other reasons."""
        return [one for one in self.left_out if one.reason is not Reason.UNREADABLE]


def find(folder: Path, *, deep: bool = True, skip: Collection[Path] = ()) -> Found:
    """Find the pictures of a folder by their suffixes, in upper or lower case.

    Follows links. Each folder is searched once, preferably by its real path below `folder`, so
    cycles are harmless. Raises nothing: what cannot be read is in `left_out`.

    Args:
        folder: the folder.
        deep: search subfolders too.
        skip: folders to ignore.
    """
    found = Found()
    searched = {place for path in skip if (place := _place(path)) is not None}
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        try:
            status = here.stat()
            place = (status.st_dev, status.st_ino)
            if place in searched:
                if here.is_symlink():
                    found.left_out.append(LeftOut(here, Reason.SEARCHED))
                continue
            searched.add(place)
            with os.scandir(here) as entries:
                for entry in entries:
                    _sort_in(entry, found, folders, links, deep=deep)
        except OSError as error:
            found.left_out.append(LeftOut(here, Reason.UNREADABLE, reason_of(error)))
        links.sort()  # makes the choice among several links to one folder deterministic
    found.pictures.sort()
    found.left_out.sort(key=lambda one: one.path)
    return found


def _sort_in(
    entry: os.DirEntry[str], found: Found, folders: list[Path], links: list[Path], *, deep: bool
) -> None:
    path = Path(entry.path)
    try:
        if entry.is_dir():
            if deep:
                (links if entry.is_symlink() else folders).append(path)
        elif path.suffix.lower() not in SUFFIXES or entry.name.startswith(_APPLE_DOUBLE):
            if not path.suffix and entry.is_symlink():
                entry.stat()  # raises if it is a broken link, whose target may have been a folder
            found.left_out.append(LeftOut(path, Reason.NOT_A_PICTURE))
        elif entry.is_file():
            found.pictures.append(path)
        else:
            entry.stat()  # raises if it is a broken link
            found.left_out.append(LeftOut(path, Reason.SPECIAL))
    except OSError as error:
        found.left_out.append(LeftOut(path, Reason.UNREADABLE, reason_of(error)))


def _place(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def reason_of(error: OSError) -> str:
    """Return the operating system's message without the file name."""
    return error.strerror or str(error) or type(error).__name__


def name_of(path: Path) -> str:
    """Format a path as one line; escapes invalid UTF-8, control characters and backslashes."""
    escaped = os.fsencode(path).replace(b"\\", b"\\\\")  # keeps the mapping unambiguous
    text = escaped.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def summarise(left_out: Iterable[LeftOut]) -> list[str]:
    """Return one line per reason with the number of files and some of their names."""
    by_reason: dict[Reason, list[str]] = {}
    for one in left_out:
        detail = f" ({one.detail})" if one.detail else ""
        by_reason.setdefault(one.reason, []).append(f"{name_of(one.path)}{detail}")
    lines = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"{len(names)} left out, {reason}: {', '.join(names[:_NAMED])}{more}")
    return lines
