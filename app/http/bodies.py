"""Uploads of one picture without a form: the bytes alone, or base64 in JSON."""

from __future__ import annotations

import binascii
import json
import re
from typing import Any

from app.contract.schemas import ErrorCode
from app.http.forms import Form, FormRules, Spool, Upload, malformed
from app.http.problems import ServiceError

_PICTURE = "image"
_NUMBERS = ("frames",)  # fields that are integers in JSON
_QUANTUM = 4  # characters of base64 for 3 bytes
# Inside of a string its quotes would have a backslash in front.
_START = re.compile(rb'(?<!\\)"%s"\s{0,64}:\s{0,64}"' % _PICTURE.encode())
_LONGEST_START = 256  # bytes, more than a match can have


class RawReader:
    """The picture is the body; fields are in the query."""

    def __init__(self, rules: FormRules, query: dict[str, list[str]]) -> None:
        self.max_body = rules.max_bytes
        self._fields = query
        self._size = 0

    async def feed(self, chunk: bytes) -> bytes:
        """As in `BodyReader`."""
        self._size += len(chunk)
        return chunk

    def form(self, spool: Spool, *, large: bool) -> Form:
        """As in `BodyReader`."""
        if not self._size and "url" in self._fields:
            return Form([], self._fields)
        return Form([Upload(self._size, large, spool, 0)], self._fields)


class JsonReader:
    """An object with the fields, and the picture as base64 in `image`.

    The picture is decoded as it arrives. Everything else is kept, with an empty string in place of
    the picture, and parsed at the end.
    """

    def __init__(self, rules: FormRules, query: dict[str, list[str]]) -> None:
        self.max_body = rules.max_overhead + (rules.max_bytes + 2) // 3 * _QUANTUM
        self._rules = rules
        self._fields = query
        self._rest = bytearray()  # the body without the picture
        self._base64: bytes | None = None  # not decoded yet; None outside of the picture
        self._padded = False  # whether the base64 has ended
        self._size = -1  # of the picture; -1: there is none so far

    async def feed(self, chunk: bytes) -> bytes:
        """As in `BodyReader`."""
        decoded = b""
        if self._size < 0:
            begin = max(0, len(self._rest) - _LONGEST_START)  # not again from the beginning
            self._rest += chunk
            found = _START.search(self._rest, begin)
            chunk = b""
            if found is not None:
                chunk = bytes(self._rest[found.end() :])
                del self._rest[found.end() :]
                self._base64, self._size = b"", 0
        if self._base64 is not None:
            picture, quote, chunk = chunk.partition(b'"')
            decoded = self._decode(picture, last=bool(quote))
            self._rest += quote
        self._rest += chunk
        if len(self._rest) > self._rules.max_overhead:
            raise malformed(
                f"The limit of all fields but the picture is {self._rules.max_overhead} bytes."
            )
        return decoded

    def form(self, spool: Spool, *, large: bool) -> Form:
        """As in `BodyReader`."""
        try:
            fields = json.loads(self._rest.decode(), object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            raise malformed("The body is not JSON, or a name occurs twice.") from None
        if not isinstance(fields, dict):
            raise malformed("The body must be a JSON object.")
        picture = fields.pop(_PICTURE, None)
        if (picture is None) != (self._size < 0) or picture:
            raise malformed(f"`{_PICTURE}` must be a string, the picture in base64.")
        for name, value in fields.items():
            if name not in self._rules.fields:
                raise malformed(
                    f"`{name[:100]}` is not a field of this call; it has "
                    f"{', '.join((_PICTURE, *self._rules.fields))}."
                )
            if value is not None:
                self._fields.setdefault(name, []).append(_text(name, value))
        if self._size >= 0:
            return Form([Upload(self._size, large, spool, 0)], self._fields)
        if "url" in self._fields:
            return Form([], self._fields)
        raise ServiceError(ErrorCode.FILE_MISSING, f"The body has no `{_PICTURE}`.")

    def _decode(self, piece: bytes, *, last: bool) -> bytes:
        """Decode a piece of the picture; `last`: the string ends after it."""
        data = ((self._base64 or b"") + piece).replace(b"\\/", b"/")  # an escaped slash
        whole = len(data) if last else len(data) // _QUANTUM * _QUANTUM
        if not last and data[:whole].endswith(b"\\"):
            whole -= _QUANTUM
        now, rest = data[:whole], data[whole:]
        if now and self._padded:
            raise malformed(f"`{_PICTURE}` is not base64.")
        try:
            decoded = binascii.a2b_base64(now, strict_mode=True)
        except binascii.Error:
            raise malformed(f"`{_PICTURE}` is not base64.") from None
        self._padded |= now.endswith(b"=")
        self._base64 = None if last else rest
        self._size += len(decoded)
        return decoded


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _text(name: str, value: object) -> str:
    if name in _NUMBERS and type(value) is int:
        return str(value)
    if name in _NUMBERS or not isinstance(value, str):
        kind = "an integer" if name in _NUMBERS else "a string"
        raise malformed(f"`{name}` must be {kind}.")
    return value
