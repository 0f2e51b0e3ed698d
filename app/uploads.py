"""Reading a multipart upload without ever holding more of it than the limit."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message

from app.problems import ServiceError
from app.schemas import ErrorCode

_FORM_OVERHEAD = 64 * 1024  # bytes: boundaries and the small fields
_FILE_OVERHEAD = 2 * 1024  # bytes a file: part headers, and its own small field
_MAX_FIELDS = 16  # beside one for each file


@dataclass(frozen=True)
class Form:
    """The uploaded files, which live as long as the form is open, and the text fields."""

    files: list[UploadFile]
    fields: dict[str, list[str]]

    def field(self, name: str) -> str | None:
        """A text field that may be given once.

        Raises:
            ServiceError: `malformed_request`.
        """
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise ServiceError(ErrorCode.MALFORMED_REQUEST, f"`{name}` is given more than once.")
        return values[0] if values else None


@contextlib.asynccontextmanager
async def open_form(
    request: Request, part: str, *, max_files: int, max_bytes: int
) -> AsyncIterator[Form]:
    """Read the file parts of one name and the text fields of a multipart body.

    The announced length is checked before the body is read, the true one while it is. Files of
    more than a megabyte lie on disk.

    Args:
        request: its body must not have been read.
        part: name of the file parts; at least one is there.
        max_files: most files of any name.
        max_bytes: largest sum of all files.

    Raises:
        ServiceError: `upload_too_large`, `file_missing`, `malformed_request`.
    """
    _check_type(request, part)
    too_large = ServiceError(
        ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {max_bytes} bytes for an upload."
    )
    most = max_bytes + _FORM_OVERHEAD + max_files * _FILE_OVERHEAD
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        raise too_large
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most:
            # The parser closes its temporary files on its own error only.
            raise MultiPartException(too_large.detail)
        return message

    body = Request(request.scope, limited)
    try:
        form = await body.form(max_files=max_files, max_fields=_MAX_FIELDS + max_files)
    except HTTPException as error:
        if received > most:
            raise too_large from None
        raise ServiceError(ErrorCode.MALFORMED_REQUEST, error.detail) from None
    try:
        files = [file for file in form.getlist(part) if isinstance(file, UploadFile)]
        if not files:
            raise ServiceError(ErrorCode.FILE_MISSING, f"The form has no file part named `{part}`.")
        fields: dict[str, list[str]] = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields.setdefault(name, []).append(value)
            elif name != part:  # left out in silence, it would be taken for accepted
                raise ServiceError(
                    ErrorCode.MALFORMED_REQUEST, f"File parts must be named `{part}`, all of them."
                )
        yield Form(files, fields)
    finally:
        await form.close()


def _check_type(request: Request, part: str) -> None:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ServiceError(
            ErrorCode.FILE_MISSING,
            f"Send the picture as the part `{part}` of a multipart/form-data body.",
        )
    # The parser would take any codec of Python's for the fields.
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise ServiceError(ErrorCode.MALFORMED_REQUEST, "The fields of a form must be UTF-8.")


async def read_file(file: UploadFile, max_bytes: int) -> bytes:
    """The bytes of an uploaded file.

    Raises:
        ServiceError: `upload_too_large`.
    """
    if (file.size or 0) > max_bytes:
        raise ServiceError(
            ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {max_bytes} bytes for a file."
        )
    return await file.read()
