"""Reading of uploads within shared limits of memory and disk."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterator

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.multipart import parse_options_header

from app.contract.blobs import StorageUnavailableError
from app.contract.schemas import ErrorCode
from app.http.bodies import JsonReader, RawReader
from app.http.fetching import Fetcher
from app.http.forms import BodyReader, Form, FormRules, Spool, Upload, malformed
from app.http.multipart import MultipartReader
from app.http.problems import ServiceError
from app.http.resources import Resources

SMALL = 2**20
"""Maximum size of a request that is kept in memory while it arrives, in bytes."""


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


@contextlib.asynccontextmanager
async def open_upload(
    request: Request, rules: FormRules, resources: Resources, caller: str, fetcher: Fetcher
) -> AsyncIterator[Form]:
    """Read a body, small ones into memory and others to disk; fetch the picture of a `url`.

    Size and capacity are checked before the body is read, or while it is read if there is no
    `Content-Length`.

    Args:
        request: request whose body has not been read.
        rules: limits of the upload.
        resources: shared memory and disk space.
        caller: name of the caller.
        fetcher: fetches pictures by URL.

    Raises:
        ServiceError: If it is refused: `upload_too_large`, `too_many_uploads`, `file_missing`,
            `malformed_request`, `fetch_refused` or `fetch_failed`.
        StorageUnavailableError: If the disk cannot be written.
    """
    reader = _reader(request, rules)
    too_large = ServiceError(
        ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {rules.max_bytes} bytes for an upload."
    )
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else None
    if announced is not None and announced > reader.max_body:
        raise too_large
    small = (
        announced is not None
        and announced <= SMALL
        and resources.memory.available(caller, announced)
    )
    async with contextlib.AsyncExitStack() as stack:
        spool: Spool
        if small:
            permit = await stack.enter_async_context(resources.memory.hold(caller, announced or 0))
            spool = _Memory()
        else:
            permit = await stack.enter_async_context(resources.disk.hold(caller, announced or 0))
            spool = stack.enter_context(_disk())
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > reader.max_body:
                raise too_large
            await permit.grow(received)
            data = await reader.feed(chunk)
            if data:
                await spool.write(data)
        form = reader.form(spool, large=not small)
        if form.field("url") is not None:
            form = await _fetched(form, rules, resources, caller, fetcher, stack)
        yield form


async def _fetched(
    form: Form,
    rules: FormRules,
    resources: Resources,
    caller: str,
    fetcher: Fetcher,
    stack: contextlib.AsyncExitStack,
) -> Form:
    """The form with the picture of its `url`, which is on disk until `stack` is closed."""
    if form.files:
        raise malformed("Send either a file or a `url`.")
    permit = await stack.enter_async_context(resources.disk.hold(caller))
    spool = stack.enter_context(_disk())
    size = 0
    fetched = fetcher.fetch(form.field("url") or "")
    async with resources.fetches.hold(caller, 1), contextlib.aclosing(fetched) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size > rules.max_bytes:
                raise ServiceError(
                    ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {rules.max_bytes} bytes for a file."
                )
            await permit.grow(size)
            await spool.write(chunk)
    return Form([Upload(size, True, spool, 0)], form.fields)


def _reader(request: Request, rules: FormRules) -> BodyReader:
    """The reader of a request's body.

    Raises:
        ServiceError: If there is none for its content type: `file_missing`.
    """
    given = request.headers.get("content-type")
    kind, options = parse_options_header(given)
    query: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        query.setdefault(name, []).append(value)
    if kind == b"multipart/form-data":
        return MultipartReader(options, rules, query)
    if rules.max_files == 1:
        if kind == b"application/json":
            return JsonReader(rules, query)
        if kind.startswith(b"image/") or kind == b"application/octet-stream":
            return RawReader(rules, query)
        if given is None and "url" in query:
            return RawReader(rules, query)
    raise ServiceError(
        ErrorCode.FILE_MISSING,
        f"Send the picture as the part `{rules.part}` of a multipart/form-data body.",
    )
