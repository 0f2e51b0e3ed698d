"""A statement of a file about its origin, and text that hostile bytes may hold."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

MAX_BYTES = 12 * 1024
"""Of JSON, about, that all statements of a file take."""
MAX_STATEMENTS = 16
"""Statements of one file that are kept; those of the first sources stay."""
MAX_TEXT = 200
"""Characters of a name, a date and the like."""
MAX_PROMPT = 3000
"""Characters of a prompt."""

_DESCRIPTION = b"jumd"  # the box with which each C2PA manifest begins, in all containers alike
_CUT = "…"
_INVISIBLE = ("Cc", "Cf", "Cs")  # Unicode categories: control, format (text direction), surrogates


class Source(StrEnum):
    """Where in a file a statement stands."""

    C2PA = "c2pa"
    XMP = "xmp"
    IPTC = "iptc"
    EXIF = "exif"
    TEXT = "text"
    """What a generator writes: PNG text chunks, EXIF's comment fields."""
    ALPHA = "alpha"
    """Text in the lowest bits of a PNG's opacity, as NovelAI hides it."""
    WATERMARK = "watermark"


class Says(StrEnum):
    """How the picture came about."""

    GENERATED = "generated"
    COMPOSITE = "composite"
    """Parts of it are generated."""
    CAPTURED = "captured"
    EDITED = "edited"


class Confidence(StrEnum):
    """What stands behind a statement."""

    SIGNED_TRUSTED = "signed_trusted"
    """The signature fits the picture, and its certificate leads to the trust list."""
    SIGNED_UNTRUSTED = "signed_untrusted"
    """The signature fits the picture; anybody may have made it."""
    UNSIGNED = "unsigned"
    """Nothing, or a signature that does not fit: anybody can write it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What one source of a file says."""

    source: Source
    says: Says | None = None
    """None: something is there, and it does not tell how the picture came about."""
    by: str | None = None
    """Signer, generator, camera or program."""
    confidence: Confidence = Confidence.UNSIGNED
    details: dict[str, Any] = field(default_factory=dict)
    """Texts, lists and objects for JSON; docs/provenance.md has the keys."""


def parse(value: object) -> Statement:
    """A statement that another process sent as JSON.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise ValueError("no statement")
    says, by, details = value["says"], value["by"], value["details"]
    if not isinstance(details, dict) or not (by is None or isinstance(by, str)):
        raise ValueError("a statement with other fields")
    return Statement(
        Source(value["source"]),
        None if says is None else Says(says),
        None if by is None else clean(by),
        Confidence(value["confidence"]),
        details,
    )


_FIELDS = {"source", "says", "by", "confidence", "details"}


def fitting(statements: Iterable[Statement]) -> list[Statement]:
    """The first statements, those without their details that would take them beyond `MAX_BYTES`.

    Raises:
        ValueError: They hold what is no Unicode.
    """
    kept, left = list[Statement](), MAX_BYTES
    for one in list(statements)[:MAX_STATEMENTS]:
        size = len(json.dumps(asdict(one), ensure_ascii=False).encode())
        if size > left:
            one = replace(one, details={"shortened": True})
        else:
            left -= size
        kept.append(one)
    return kept


def may_hold_manifest(data: bytes) -> bool:
    """Whether a file may hold a C2PA manifest; False is certain."""
    return _DESCRIPTION in data


def clean(value: object, most: int = MAX_TEXT) -> str:
    """Text as it may be shown: valid Unicode without invisible characters, at most so long.

    Args:
        value: Text, bytes (UTF-8) or a number.
        most: Characters.
    """
    if isinstance(value, bytes):
        value = value[: 4 * most + 4].decode("utf-8", "replace")
    text = str(value)[: 2 * most]
    shown = "".join(
        char for char in text if char == "\n" or unicodedata.category(char) not in _INVISIBLE
    ).strip()
    return shown if len(shown) <= most else shown[: most - 1] + _CUT


def present(**values: Any) -> dict[str, Any]:
    """The values that are there, as details of a statement."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def unreadable_manifest(reason: str) -> Statement:
    """What is said of a C2PA manifest that is there and cannot be read."""
    details = {"valid": False, "trusted": False, "problems": [clean(reason)]}
    return Statement(Source.C2PA, details=details)
