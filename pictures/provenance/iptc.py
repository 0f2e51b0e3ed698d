"""Provenance in IPTC IIM datasets, which are stored among Photoshop's image resources."""

from __future__ import annotations

from collections.abc import Iterator

from pictures.origin import Says, Source, Statement
from pictures.provenance import editors
from pictures.provenance.statement import clean, present

_MARK, _HEAD = 0x1C, 5  # first byte of a dataset; bytes before its value
_APPLICATION_RECORD = 2
_NAMES = {65: "program", 80: "creator", 105: "headline", 110: "credit", 115: "source"}
_MAX_DATASETS = 256


def read(data: bytes) -> Statement | None:
    """Read datasets; None if none of the known ones is present."""
    found: dict[str, str] = {}
    for number, value in _datasets(data):
        if number in _NAMES:
            found.setdefault(_NAMES[number], clean(value))
    details = present(**found)
    if not details:
        return None
    named = [details.get(name, "") for name in ("credit", "program", "source")]  # no people
    naming = next(filter(editors.generator, named), "")
    generator = editors.generator(naming)
    if generator is not None:
        says = Says.COMPOSITE if editors.edited_by_generator(naming) else Says.GENERATED
        return Statement(Source.IPTC, says, generator, details=details)
    program = details.get("program", "")
    edited = editors.is_editor(program)
    by = program if edited else details.get("credit")
    return Statement(Source.IPTC, Says.EDITED if edited else None, by, details=details)


def _datasets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    for _ in range(_MAX_DATASETS):
        head = data[at : at + _HEAD]
        if len(head) < _HEAD or head[0] != _MARK or head[3] & 0x80:  # 0x80: extended dataset
            return
        size = int.from_bytes(head[3:], "big")
        if head[1] == _APPLICATION_RECORD:
            yield head[2], data[at + _HEAD : at + _HEAD + size]
        at += _HEAD + size
