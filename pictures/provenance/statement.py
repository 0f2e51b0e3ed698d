"""Limits, parsing and sanitising of statements: they are untrusted text of a file."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any

from pydantic import JsonValue, TypeAdapter

from pictures.origin import Source, Statement

MAX_BYTES = 12 * 1024
"""Approximate maximum size of all statements of a file as JSON, in bytes."""
MAX_STATEMENTS = 16
"""Maximum number of statements of a file; the first ones are kept."""
MAX_OF_SOURCE = 3
"""Maximum number of statements of a source; files rarely have more than one."""
MAX_TEXT = 200
"""Maximum length of names, dates etc. in characters."""
MAX_PROMPT = 3000
"""Maximum length of a prompt in characters."""

_DESCRIPTION = b"jumd"  # first box of a C2PA manifest, in all containers
_CUT = "…"
# Unicode categories: control, format (text direction), surrogates, private use, separators of
# lines and of paragraphs.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_FILLERS = "\u115f\u1160\u3164\uffa0"  # Hangul letters that look like spaces
_MARKS = ("Mn", "Mc", "Me")  # categories of combining marks
_MAX_MARKS = 4  # combining marks in a row
_STATEMENT = TypeAdapter(Statement)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a file."""

    statements: list[Statement] = field(default_factory=list)
    incomplete: bool = False
    """Whether some metadata could not be read."""


def parse(value: object) -> Statement:
    """Validate a statement received as JSON from a decoder process.

    Raises:
        ValueError: If it is invalid.
    """
    statement = _STATEMENT.validate_python(value)
    return replace(statement, by=statement.by and clean(statement.by))


def fitting(statements: Iterable[Statement]) -> list[Statement]:
    """Limit statements to `MAX_STATEMENTS` and, by shortening details, to `MAX_BYTES`.

    Raises:
        ValueError: If they contain invalid Unicode.
    """
    whole = list(statements)[:MAX_STATEMENTS]
    kept = [_without_details(one) for one in whole]
    left = MAX_BYTES - sum(_size(asdict(one)) for one in kept)
    for at, one in enumerate(whole):
        before = _size(asdict(kept[at]))
        if _size(asdict(one)) - before > left:
            one = _shortened(one, kept[at], left)
        left -= _size(asdict(one)) - before
        kept[at] = one
    return kept


_ALWAYS_KEPT = ("valid", "trusted", "signer", "problems", "generator", "model")
_LONG = ("prompt", "negative_prompt", "settings")


def _without_details(one: Statement) -> Statement:
    """A statement with those details only that are always kept."""
    details = {name: one.details[name] for name in _ALWAYS_KEPT if name in one.details}
    if len(details) < len(one.details):
        details["shortened"] = True
    return replace(one, details=details)


def _shortened(one: Statement, without: Statement, left: int) -> Statement:
    """A statement with as many further details as fit: first entries of lists, cut prompts."""
    details = dict(without.details)
    for name, value in one.details.items():
        if name in details:
            continue
        room = left - _size({name: ""})
        if isinstance(value, list):
            value = _first(value, room)
        elif name in _LONG and isinstance(value, str):
            value = _cut(value, room)
        if value not in ("", []) and _size({name: value}) <= left:
            details[name] = value
            left -= _size({name: value})
    return replace(one, details=details)


def _first(entries: list[Any], room: int) -> list[Any]:
    sizes = accumulate(_size(one) + 2 for one in entries)
    return [one for one, size in zip(entries, sizes, strict=True) if size <= room]


def _cut(text: str, room: int) -> str:
    """Cut text to a number of bytes as JSON."""
    if _size(text) - 2 <= room:
        return text
    sizes = accumulate((_size(char) - 2 for char in text), initial=len(_CUT.encode()))
    most = sum(size <= room for size in sizes) - 1
    return text[:most] + _CUT if most > 0 else ""


def _size(value: object) -> int:
    """Bytes as JSON."""
    return len(json.dumps(value, ensure_ascii=False).encode())


def may_hold_manifest(data: bytes) -> bool:
    """Whether a file may contain a C2PA manifest; no false negatives."""
    return _DESCRIPTION in data


def clean(value: object, most: int = MAX_TEXT, *, lines: bool = False) -> str:
    """Convert to text that is safe to show: valid Unicode without invisible characters.

    Combining marks after the fourth in a row are dropped, since they cover the text around them.

    Args:
        value: Text, bytes (UTF-8) or a number.
        most: Maximum length in characters; longer text ends with an ellipsis.
        lines: Whether to keep line breaks, as in prompts; otherwise all white space is collapsed.
    """
    if isinstance(value, bytes):
        value = value[: 4 * most + 4].decode("utf-8", "replace")
    text = str(value)[: 2 * most]
    if not lines:
        text = " ".join(text.split())
    kept, marks = list[str](), 0
    for char in text:
        category = unicodedata.category(char)
        if char != "\n" and (category in _INVISIBLE or char in _FILLERS):
            continue
        marks = marks + 1 if category in _MARKS else 0
        if marks <= _MAX_MARKS:
            kept.append(char)
    shown = "".join(kept).strip()
    return shown if len(shown) <= most else shown[: most - 1] + _CUT


def present(**values: Any) -> dict[str, Any]:
    """Return the values that are not empty, as details of a statement."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def unreadable_manifest(reason: str) -> Statement:
    """Return the statement for a C2PA manifest that cannot be read."""
    problems: list[JsonValue] = [clean(reason)]
    details: dict[str, JsonValue] = {"valid": False, "trusted": False, "problems": problems}
    return Statement(Source.C2PA, details=details)
