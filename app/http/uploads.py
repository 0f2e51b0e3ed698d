"""Reading of multipart uploads within shared limits of memory and disk."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.contract.blobs import StorageUnavailableError
from app.contract.schemas import ErrorCode
from app.http.problems import ServiceError
from app.http.resources import Resources

SMALL = 2**20
"""Maximum size of a request that is kept in memory while it arrives, in bytes."""

_FORM_OVERHEAD = 64 * 1024  # bytes, for boundaries and text fields
_FILE_OVERHEAD = 2 * 1024  # bytes per file, for part headers and its text field
_MAX_FIELDS = 16  # in addition to one per file
_MAX_HEADERS = 8  # of a part
_MAX_HEADER = 4096  # bytes, name and value
_MAX_NAME = 100  # characters of an unknown field's name in the message
_SLICE = 16 * 1024  # bytes of a form that are parsed at once
_TURN = 0.0005  # s of parsing, after which the event loop runs other tasks


class _Spool(Protocol):
    """Buffer of the concatenated files of a form."""

    async def write(self, data: bytes) -> None: ...

    async def read(self, start: int, size: int) -> bytes: ...


class _Memory:
    def __init__(self) -> None:
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        self._data += data

    async def read(self, start: int, size: int) -> bytes:
        return bytes(memoryview(self._data)[start : start + size])


class _Disk:
    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    async def write(self, data: bytes) -> None:
        with _outage():
            await run_in_threadpool(self._write, data)

    async def read(self, start: int, size: int) -> bytes:
        with _outage():
            return await run_in_threadpool(os.pread, self._file.fileno(), size, start)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]


@contextlib.contextmanager
def _disk() -> Iterator[_Disk]:
    with contextlib.ExitStack() as stack:
        with _outage():
            file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        yield _Disk(file)


@contextlib.contextmanager
def _outage() -> Iterator[None]:
    """Convert errors of the temporary folder to `StorageUnavailableError`."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(f"temporary folder: {error.strerror}") from error


@dataclass(frozen=True)
class Upload:
    """An uploaded file, readable while its form is open.

    Attributes:
        size: size in bytes.
        large: whether it is on disk.
    """

    size: int
    large: bool
    _spool: _Spool
    _start: int

    async def read(self, max_bytes: int) -> bytes:
        """Read the file.

        Raises:
            ServiceError: If it has more than `max_bytes`: `upload_too_large`.
            StorageUnavailableError: If the disk cannot be read.
        """
        if self.size > max_bytes:
            raise ServiceError(
                ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {max_bytes} bytes for a file."
            )
        return await self._spool.read(self._start, self.size)


@dataclass(frozen=True)
class Form:
    """The files and text fields of a form."""

    files: list[Upload]
    fields: dict[str, list[str]]

    def field(self, name: str) -> str | None:
        """Value of a text field; None if it is absent.

        Raises:
            ServiceError: If it is repeated: `malformed_request`.
        """
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise _malformed(f"`{name}` is given more than once.")
        return values[0] if values else None


@dataclass(frozen=True)
class FormRules:
    """Limits of a form.

    Attributes:
        part: name of the file parts, of which at least one is required.
        fields: names of the text fields.
        max_files: maximum number of files.
        max_bytes: maximum total size of the files.
    """

    part: str
    fields: Collection[str]
    max_files: int
    max_bytes: int

    @property
    def max_body(self) -> int:
        """Maximum size of the body in bytes."""
        return self.max_bytes + self.max_overhead

    @property
    def max_overhead(self) -> int:
        """Maximum size of everything but files in bytes."""
        return _FORM_OVERHEAD + self.max_files * _FILE_OVERHEAD

    @property
    def max_fields(self) -> int:
        """Maximum number of text fields."""
        return _MAX_FIELDS + self.max_files


@contextlib.asynccontextmanager
async def open_form(
    request: Request, rules: FormRules, resources: Resources, caller: str
) -> AsyncIterator[Form]:
    """Read a multipart body, small ones into memory and others to disk.

    Size and capacity are checked before the body is read, or while it is read if there is no
    `Content-Length`.

    Args:
        request: request whose body has not been read.
        rules: limits of the form.
        resources: shared memory and disk space.
        caller: name of the caller.

    Raises:
        ServiceError: If it is refused: `upload_too_large`, `too_many_uploads`, `file_missing` or
            `malformed_request`.
        StorageUnavailableError: If the disk cannot be written.
    """
    boundary = _boundary(request, rules.part)
    too_large = ServiceError(
        ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {rules.max_bytes} bytes for an upload."
    )
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else None
    if announced is not None and announced > rules.max_body:
        raise too_large
    small = (
        announced is not None
        and announced <= SMALL
        and resources.memory.available(caller, announced)
    )
    async with contextlib.AsyncExitStack() as stack:
        spool: _Spool
        if small:
            permit = await stack.enter_async_context(resources.memory.hold(caller, announced or 0))
            spool = _Memory()
        else:
            permit = await stack.enter_async_context(resources.disk.hold(caller, announced or 0))
            spool = stack.enter_context(_disk())
        reader = _FormReader(boundary, rules)
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > rules.max_body:
                raise too_large
            await permit.grow(received)
            data = await reader.feed(chunk)
            if data:
                await spool.write(data)
        yield reader.form(spool, large=not small)


def _boundary(request: Request, part: str) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ServiceError(
            ErrorCode.FILE_MISSING,
            f"Send the picture as the part `{part}` of a multipart/form-data body.",
        )
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise _malformed("The fields of a form must be UTF-8.")
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("The content type of the form names no boundary.")
    return boundary


class _FormReader:
    """Incremental parser of a multipart body (RFC 7578)."""

    def __init__(self, boundary: bytes, rules: FormRules) -> None:
        self._rules = rules
        self._names = (rules.part, *rules.fields)
        self._fields: dict[str, list[str]] = {}
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
            raise _malformed(f"{error}.") from None

    async def feed(self, chunk: bytes) -> bytes:
        """Parse a chunk; yields to other tasks if that takes long.

        Returns:
            Bytes of files in the chunk.

        Raises:
            ServiceError: If the body is invalid: `malformed_request`.
        """
        for at in range(0, len(chunk), _SLICE):
            started = time.perf_counter()
            try:
                self._parser.write(chunk[at : at + _SLICE])
            except FormParserError as error:
                raise _malformed(f"This is no multipart body: {error}.") from None
            if time.perf_counter() - started > _TURN:
                await asyncio.sleep(0)
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return data

    def form(self, spool: _Spool, *, large: bool) -> Form:
        """The parsed form, after the last chunk.

        Args:
            spool: buffer with the bytes that `feed` returned.
            large: whether the buffer is on disk.

        Raises:
            ServiceError: If the body is incomplete (`malformed_request`) or has no file
                (`file_missing`).
        """
        if not self._ended:
            raise _malformed("The form ends before its last boundary.")
        if not self._ranges:
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
            raise _malformed(f"A part of the form may have {_MAX_HEADERS} header fields.")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > _MAX_HEADER:
            raise _malformed(
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
            raise _malformed("A part of the form has no name.")
        if self._name not in self._names:
            raise _malformed(
                f"`{self._name[:_MAX_NAME]}` is not a field of this form; "
                f"it has {', '.join(self._names)}."
            )
        if self._name == rules.part:
            if len(self._ranges) == rules.max_files:
                raise _malformed(f"The form may have {rules.max_files} parts `{rules.part}`.")
        elif b"filename" in options:
            raise _malformed(f"`{self._name}` is text; files are parts named `{rules.part}`.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._rules.part:
            self._pieces.append(data[start:end])
            self._kept += end - start
            return
        self._text += end - start
        if self._text > self._rules.max_overhead:
            raise _malformed(f"The limit of all text fields is {self._rules.max_overhead} bytes.")
        self._content += data[start:end]

    def _end_part(self) -> None:
        if self._name == self._rules.part:
            self._ranges.append((self._start, self._kept - self._start))
            return
        if sum(map(len, self._fields.values())) == self._rules.max_fields:
            raise _malformed(f"The form may have {self._rules.max_fields} text fields.")
        self._fields.setdefault(self._name, []).append(_text(bytes(self._content)))

    def _end(self) -> None:
        self._ended = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _malformed("The fields of a form must be UTF-8.") from None


def _malformed(detail: str) -> ServiceError:
    return ServiceError(ErrorCode.MALFORMED_REQUEST, detail)
