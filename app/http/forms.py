"""Files and fields of an upload, whatever its body was."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from app.contract.schemas import ErrorCode
from app.http.problems import ServiceError

_FORM_OVERHEAD = 64 * 1024  # bytes, for boundaries and text fields
_FILE_OVERHEAD = 2 * 1024  # bytes per file, for part headers and its text field
_MAX_FIELDS = 16  # in addition to one per file


class Spool(Protocol):
    """Buffer of the concatenated files of an upload."""

    async def write(self, data: bytes) -> None:
        """Append bytes."""

    async def read(self, start: int, size: int) -> bytes:
        """Bytes from `start` on."""


@dataclass(frozen=True)
class Upload:
    """An uploaded file, readable while its form is open.

    Attributes:
        size: size in bytes.
        large: whether it is on disk.
    """

    size: int
    large: bool
    _spool: Spool
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
            raise malformed(f"`{name}` is given more than once.")
        return values[0] if values else None


@dataclass(frozen=True)
class FormRules:
    """Limits of an upload.

    Attributes:
        part: name of the file parts, of which at least one is required, or a `url`.
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


class BodyReader(Protocol):
    """Incremental parser of a request's body."""

    @property
    def max_body(self) -> int:
        """Maximum size of the body in bytes."""

    async def feed(self, chunk: bytes) -> bytes:
        """Parse a chunk; returns the bytes of files in it.

        Raises:
            ServiceError: If the body is invalid: `malformed_request`.
        """

    def form(self, spool: Spool, *, large: bool) -> Form:
        """The parsed upload, after the last chunk.

        Args:
            spool: buffer with the bytes that `feed` returned.
            large: whether the buffer is on disk.

        Raises:
            ServiceError: If the body is incomplete (`malformed_request`) or has neither a file nor
                a `url` (`file_missing`).
        """


def malformed(detail: str) -> ServiceError:
    """The error `malformed_request`."""
    return ServiceError(ErrorCode.MALFORMED_REQUEST, detail)
