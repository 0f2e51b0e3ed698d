"""Folders and buckets: reading pictures, writing results."""

from __future__ import annotations

import os
import stat
import uuid
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pictures.finding import reason_of

BUCKET = "s3://"
# Error codes of S3 that concern one object; others, such as an expired token, concern all.
_OF_ONE_OBJECT = frozenset(("NoSuchKey", "AccessDenied", "InvalidObjectState"))
_EMPTY = frozenset(("InvalidRange", "416"))  # the object has no first byte


class Target(Protocol):
    """Where the results are; names may contain slashes."""

    def read(self, name: str) -> bytes | None:
        """Return the contents of a file; None if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically; replaces an existing one."""

    def open(self, name: str) -> Any:
        """Open an existing file for reading at any position."""

    def names(self, folder: str = "") -> set[str]:
        """Names of the files directly in a folder; empty if there is no folder."""

    def has(self, name: str) -> bool:
        """Whether a file exists."""

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""


class Folder:
    """Target in a local folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> bytes | None:
        """Return the contents of a file; None if there is none."""
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically; replaces an existing one."""
        file = self._path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def open(self, name: str) -> Any:
        """Open an existing file for reading at any position."""
        return (self._path / name).open("rb")

    def names(self, folder: str = "") -> set[str]:
        """Names of the files directly in a folder; empty if there is no folder."""
        try:
            return set(os.listdir(self._path / folder))
        except FileNotFoundError:
            return set()

    def has(self, name: str) -> bool:
        """Whether a file exists."""
        return (self._path / name).exists()

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        (self._path / name).unlink(missing_ok=True)


class Prefix:
    """Target in a bucket; a single request writes an object, which is atomic."""

    def __init__(self, url: str) -> None:
        self._root = url.removeprefix(BUCKET).rstrip("/")

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return the contents of an object; None if there is none."""
        try:
            return bytes(bucket().cat_file(self._key(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write an object atomically; replaces an existing one."""
        bucket().pipe_file(self._key(name), data)

    def open(self, name: str) -> Any:
        """Open an existing object for reading at any position."""
        return bucket().open(self._key(name), "rb")

    def names(self, folder: str = "") -> set[str]:
        """Names of the objects directly below a prefix."""
        try:
            keys = bucket().ls(self._key(folder), detail=False)
        except FileNotFoundError:
            return set()
        return {key.rpartition("/")[2] for key in keys}

    def has(self, name: str) -> bool:
        """Whether an object exists."""
        return bool(bucket().exists(self._key(name)))

    def delete(self, name: str) -> None:
        """Delete an object if it exists."""
        try:
            bucket().rm_file(self._key(name))
        except FileNotFoundError:
            return


def target(url: str) -> Target:
    """Return the target at an absolute path or `s3://BUCKET/PREFIX`."""
    return Prefix(url) if url.startswith(BUCKET) else Folder(Path(url))


@cache
def bucket() -> Any:
    """The client of S3; endpoint, region and credentials are configured as for AWS tools.

    Raises:
        ImportError: If the extra `s3` is not installed.
    """
    from s3fs import S3FileSystem

    return S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        default_block_size=2**20,
        config_kwargs={"connect_timeout": 10, "read_timeout": 30, "max_pool_connections": 32},
    )


def read_picture(path: bytes, most: int) -> bytes:
    """Read the file of a picture.

    Args:
        path: Absolute path, or `s3://BUCKET/KEY`.
        most: Largest allowed size in bytes.

    Raises:
        UnreadableFileError: If it does not exist, must not be read, or is no regular file.
        TooLargeFileError: If it is larger.
        Exception: If the bucket cannot be used.
    """
    from worker.scoring import UnreadableFileError

    if path.startswith(BUCKET.encode()):
        return _read_object(path.decode().removeprefix(BUCKET), most)
    try:
        # Opening a pipe must not wait for its other end.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFileError("Not a regular file.")
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise UnreadableFileError(f"{reason}.") from error
    return _limited(data, most)


def _read_object(key: str, most: int) -> bytes:
    from worker.scoring import UnreadableFileError

    try:
        return _limited(bytes(bucket().cat_file(key, start=0, end=most + 1)), most)
    except OSError as error:
        code = _code(error)
        if code in _EMPTY:
            return b""
        if code not in _OF_ONE_OBJECT:
            raise
        raise UnreadableFileError(f"{reason_of(error)}.") from error


def _limited(data: bytes, most: int) -> bytes:
    from worker.scoring import TooLargeFileError

    if len(data) > most:
        raise TooLargeFileError(f"The file has more than {most} bytes.")
    return data


def _code(error: OSError) -> str | None:
    response = getattr(error.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code
