"""Reading a multipart upload without ever holding more of it than there is room for."""

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
from app.contract.settings import Settings
from app.http.problems import ServiceError
from app.http.room import Room

SMALL = 2**20
"""Bytes up to which a request is kept in memory while it arrives."""

_FORM_OVERHEAD = 64 * 1024  # bytes: boundaries and the small fields
_FILE_OVERHEAD = 2 * 1024  # bytes a file: part headers, and its own small field
_MAX_FIELDS = 16  # beside one for each file
_MAX_HEADERS = 8  # of a part
_LONGEST_HEADER = 4096  # bytes, name and value
_LONGEST_NAME = 100  # characters of an unknown field's name that are repeated
_SLICE = 16 * 1024  # bytes of a form that are read without a look at the clock
_TURN = 0.0005  # s of reading a form, after which others have their turn
_MEMORY = 16 * 2**20  # bytes of small requests that arrive; further ones go to the disk
_LARGE = 64 * 2**20  # bytes of large pictures on their way from the disk to Redis
_RENDERINGS = 4  # stored pictures that are decoded, to be shown, or are about to be
_DOWNLOADS = 128 * 2**20  # bytes of pictures and masks on their way to callers


class Rooms:
    """What uploads and downloads hold: connections, and bytes in memory or on disk."""

    def __init__(self, settings: Settings) -> None:
        self.requests = Room(settings.max_connections, "uploads", timeout=0)
        self.memory = Room(_MEMORY, "bytes", timeout=0)
        self.disk = Room(int(settings.upload_space), "bytes", timeout=5)
        self.large = Room(_LARGE, "bytes", timeout=60)
        self.renderings = Room(_RENDERINGS, "renderings", 30, ErrorCode.TOO_MANY_DOWNLOADS)
        self.downloads = Room(_DOWNLOADS, "bytes", 30, ErrorCode.TOO_MANY_DOWNLOADS)


class _Spool(Protocol):
    """Keeps the bytes of the files of a form, one after the other."""

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
    """A disk that takes or gives no more is an outage."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(f"temporary folder: {error.strerror}") from error


@dataclass(frozen=True)
class Upload:
    """An uploaded file, to be read while its form is open.

    Attributes:
        size: bytes.
    """

    size: int
    large: bool
    _spool: _Spool
    _start: int

    async def read(self, max_bytes: int) -> bytes:
        """The bytes of the file.

        Raises:
            ServiceError: `upload_too_large`.
            StorageUnavailableError: they cannot be read.
        """
        if self.size > max_bytes:
            raise ServiceError(
                ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {max_bytes} bytes for a file."
            )
        return await self._spool.read(self._start, self.size)


@dataclass(frozen=True)
class Form:
    """The uploaded files, which can be read as long as the form is open, and the text fields."""

    files: list[Upload]
    fields: dict[str, list[str]]

    def field(self, name: str) -> str | None:
        """A text field that may be given once.

        Raises:
            ServiceError: `malformed_request`.
        """
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise _malformed(f"`{name}` is given more than once.")
        return values[0] if values else None


@dataclass(frozen=True)
class FormRules:
    """What a form may hold.

    Attributes:
        part: name of the file parts; at least one is there.
        fields: names of the text fields.
        max_files: most file parts.
        max_bytes: largest sum of all files.
    """

    part: str
    fields: Collection[str]
    max_files: int
    max_bytes: int

    @property
    def max_body(self) -> int:
        """Bytes of the longest body."""
        return self.max_bytes + self.max_overhead

    @property
    def max_overhead(self) -> int:
        """Bytes of all that is no file."""
        return _FORM_OVERHEAD + self.max_files * _FILE_OVERHEAD

    @property
    def max_fields(self) -> int:
        """Most text fields."""
        return _MAX_FIELDS + self.max_files


@contextlib.asynccontextmanager
async def open_form(
    request: Request, rules: FormRules, rooms: Rooms, caller: str
) -> AsyncIterator[Form]:
    """Read a multipart body.

    The announced length is checked, and room asked for, before the body is read; where none is
    announced, both are done while it is. Small bodies are kept in memory, others on disk.

    Args:
        request: its body must not have been read.
        rules: what the form may hold.
        rooms: where its bytes are held.
        caller: on whose account the room is.

    Raises:
        ServiceError: `upload_too_large`, `too_many_uploads`, `file_missing`, `malformed_request`.
        StorageUnavailableError: the disk takes no more.
    """
    boundary = _boundary(request, rules.part)
    too_large = ServiceError(
        ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {rules.max_bytes} bytes for an upload."
    )
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else None
    if announced is not None and announced > rules.max_body:
        raise too_large
    small = announced is not None and announced <= SMALL and rooms.memory.has(caller, announced)
    async with contextlib.AsyncExitStack() as stack:
        spool: _Spool
        if small:
            claim = await stack.enter_async_context(rooms.memory.claim(caller, announced or 0))
            spool = _Memory()
        else:
            claim = await stack.enter_async_context(rooms.disk.claim(caller, announced or 0))
            spool = stack.enter_context(_disk())
        reader = _FormReader(boundary, rules)
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > rules.max_body:
                raise too_large
            await claim.grow(received)
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
    """Takes a multipart body apart as it comes (RFC 7578)."""

    def __init__(self, boundary: bytes, rules: FormRules) -> None:
        self._rules = rules
        self._names = (rules.part, *rules.fields)
        self._fields: dict[str, list[str]] = {}
        self._ranges: list[tuple[int, int]] = []  # of the files: start and size
        self._pieces: list[bytes] = []  # of files, not handed on yet
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
                # Out of reach: ours come first, and the refusal names them.
                max_header_count=_MAX_HEADERS + 1,
                max_header_size=_LONGEST_HEADER + 2 * _SLICE,
            )
        except FormParserError as error:
            raise _malformed(f"{error}.") from None

    async def feed(self, chunk: bytes) -> bytes:
        """Read on; where that takes long, others have their turn in between.

        Returns:
            Bytes of files that it holds.

        Raises:
            ServiceError: `malformed_request`.
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
        """What the body, now complete, held.

        Args:
            spool: has the bytes that `feed` returned.
            large: they are not in memory.

        Raises:
            ServiceError: `malformed_request`, `file_missing`.
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
        if len(self._header) + len(self._value) > _LONGEST_HEADER:
            raise _malformed(
                f"The limit is {_LONGEST_HEADER} bytes for a header field of a part of the form."
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
                f"`{self._name[:_LONGEST_NAME]}` is no field of this form; "
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
