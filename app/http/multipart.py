"""Uploads as a form (multipart/form-data)."""

from __future__ import annotations

import asyncio
import time

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.contract.schemas import ErrorCode
from app.http.forms import Form, FormRules, Spool, Upload, malformed
from app.http.problems import ServiceError

_MAX_HEADERS = 8  # of a part
_MAX_HEADER = 4096  # bytes, name and value
_MAX_NAME = 100  # characters of an unknown field's name in the message
_SLICE = 16 * 1024  # bytes of a form that are parsed at once
_TURN = 0.0005  # s of parsing, after which the event loop runs other tasks


class MultipartReader:
    """Incremental parser of a multipart body (RFC 7578)."""

    def __init__(
        self, options: dict[bytes, bytes], rules: FormRules, query: dict[str, list[str]]
    ) -> None:
        """Prepare for a body.

        Args:
            options: parameters of its content type.
            rules: limits of the upload.
            query: fields that the query has.

        Raises:
            ServiceError: If the content type is invalid: `malformed_request`.
        """
        boundary = _boundary(options)
        self.max_body = rules.max_body
        self._rules = rules
        self._names = (rules.part, *rules.fields)
        self._fields = query
        self._ranges: list[tuple[int, int]] = []  # start and size of each file
        self._pieces: list[bytes] = []  # of files, not yet returned by `feed`
        self._kept = 0  # bytes of all files so far
        self._text = 0  # bytes of all text fields so far
        self._ended = False
        self._begin_part()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_begin": self._begin_header,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_head,
                    "on_part_data": self._data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
                # Higher than the limits of this class, whose messages are better.
                max_header_count=_MAX_HEADERS + 1,
                max_header_size=_MAX_HEADER + 2 * _SLICE,
            )
        except FormParserError as error:
            raise malformed(f"{error}.") from None

    async def feed(self, chunk: bytes) -> bytes:
        """As in `BodyReader`; yields to other tasks if parsing takes long."""
        for at in range(0, len(chunk), _SLICE):
            started = time.perf_counter()
            try:
                self._parser.write(chunk[at : at + _SLICE])
            except FormParserError as error:
                raise malformed(f"This is no multipart body: {error}.") from None
            if time.perf_counter() - started > _TURN:
                await asyncio.sleep(0)
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return data

    def form(self, spool: Spool, *, large: bool) -> Form:
        """As in `BodyReader`."""
        if not self._ended:
            raise malformed("The form ends before its last boundary.")
        if not self._ranges and "url" not in self._fields:
            raise ServiceError(
                ErrorCode.FILE_MISSING, f"The form has no file part named `{self._rules.part}`."
            )
        return Form([Upload(size, large, spool, at) for at, size in self._ranges], self._fields)

    def _begin_part(self) -> None:
        self._name = ""
        self._header = self._value = self._disposition = b""
        self._headers = 0
        self._content = bytearray()
        self._start = self._kept

    def _begin_header(self) -> None:
        self._headers += 1
        if self._headers > _MAX_HEADERS:
            raise malformed(f"A part of the form may have {_MAX_HEADERS} header fields.")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > _MAX_HEADER:
            raise malformed(
                f"The limit is {_MAX_HEADER} bytes for a header field of a part of the form."
            )

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _end_head(self) -> None:
        _, options = parse_options_header(self._disposition)
        rules, self._name = self._rules, _text(options.get(b"name", b""))
        if not self._name:
            raise malformed("A part of the form has no name.")
        if self._name not in self._names:
            raise malformed(
                f"`{self._name[:_MAX_NAME]}` is not a field of this form; "
                f"it has {', '.join(self._names)}."
            )
        if self._name == rules.part:
            if len(self._ranges) == rules.max_files:
                raise malformed(f"The form may have {rules.max_files} parts `{rules.part}`.")
        elif b"filename" in options:
            raise malformed(f"`{self._name}` is text; files are parts named `{rules.part}`.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._rules.part:
            self._pieces.append(data[start:end])
            self._kept += end - start
            return
        self._text += end - start
        if self._text > self._rules.max_overhead:
            raise malformed(f"The limit of all text fields is {self._rules.max_overhead} bytes.")
        self._content += data[start:end]

    def _end_part(self) -> None:
        if self._name == self._rules.part:
            self._ranges.append((self._start, self._kept - self._start))
            return
        if sum(map(len, self._fields.values())) == self._rules.max_fields:
            raise malformed(f"The form may have {self._rules.max_fields} text fields.")
        self._fields.setdefault(self._name, []).append(_text(bytes(self._content)))

    def _end(self) -> None:
        self._ended = True


def _boundary(options: dict[bytes, bytes]) -> bytes:
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise malformed("The fields of a form must be UTF-8.")
    boundary = options.get(b"boundary")
    if not boundary:
        raise malformed("The content type of the form names no boundary.")
    return boundary


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise malformed("The fields of a form must be UTF-8.") from None
