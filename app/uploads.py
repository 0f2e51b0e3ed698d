"""Reading a multipart upload without ever holding more of it than the limit."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message

from app.problems import ServiceError
from app.schemas import ErrorCode

_FORM_OVERHEAD = 64 * 1024  # bytes: boundaries, part headers and the small fields
_MAX_FIELDS = 16


@dataclass(frozen=True)
class Upload:
    """One uploaded file and the text fields beside it."""

    data: bytes
    fields: dict[str, str]


async def read_upload(request: Request, max_bytes: int) -> Upload:
    """Read the `file` part and the text fields of a multipart body.

    The announced length is checked before the body is read, the true one while it is.

    Args:
        request: its body must not have been read.
        max_bytes: largest file.

    Raises:
        ServiceError: `upload_too_large`, `file_missing`, `malformed_request`.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ServiceError(
            ErrorCode.FILE_MISSING,
            "Send the picture as the part `file` of a multipart/form-data body.",
        )
    too_large = ServiceError(
        ErrorCode.UPLOAD_TOO_LARGE, f"The limit is {max_bytes} bytes for a file."
    )
    most = max_bytes + _FORM_OVERHEAD
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
        async with body.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise ServiceError(
                    ErrorCode.FILE_MISSING, "The form has no file part named `file`."
                )
            if (file.size or 0) > max_bytes:
                raise too_large
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            return Upload(await file.read(), fields)
    except HTTPException as error:
        if received > most:
            raise too_large from None
        raise ServiceError(ErrorCode.MALFORMED_REQUEST, error.detail) from None
