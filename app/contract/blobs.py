"""Storage of pictures and masks: in Redis, or in a bucket.

Redis keeps an entry for each picture and mask, under its key and with its expiry time: the bytes
themselves, or the name of an object in the bucket and the key that decrypts it. So Redis decides
in both cases what exists; an object without an entry does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.contract.settings import Settings


class StorageUnavailableError(Exception):
    """The bucket is unreachable or refuses requests."""


class StorageSetupError(RuntimeError):
    """`GAMMA_STORE` is set, but the extra `s3` is not installed."""

    def __init__(self) -> None:
        super().__init__("GAMMA_STORE needs the extra `s3`: pip install 'gamma-detect[s3]'")


class Blob(NamedTuple):
    """Bytes of a detection, or their entry in Redis."""

    detection_id: str
    content: bytes


class Blobs(Protocol):
    """Storage of bytes. Thread-safe.

    If `external`, each method but `drop` and `stop_retrying` raises `StorageUnavailableError` if
    the bucket is unavailable; part of the work may be done then.
    """

    @property
    def external(self) -> bool:
        """Whether the bytes are outside Redis, where they outlive their entries."""

    def keep(self, blobs: Sequence[Blob]) -> list[bytes]:
        """Store bytes and return their entries."""

    def fetch(self, entries: Sequence[Blob | None]) -> list[bytes | None]:
        """Bytes of entries; None for a missing entry or missing bytes."""

    def copy(self, entries: Sequence[Blob], target: str) -> bool:
        """Copy bytes to the detection `target`, with the same entries; False if any is missing."""

    def drop(self, entries: Sequence[Blob]) -> None:
        """Delete the bytes of entries that were not written to Redis, as far as possible."""

    def clear(self, detection_id: str) -> None:
        """Delete all bytes of a detection, including those without an entry."""

    def check(self) -> None:
        """Check that bytes can be stored."""

    def stop_retrying(self) -> None:
        """Fail at once during outages, because this process is stopping."""


class RedisBlobs:
    """Storage in Redis, where each entry is the bytes themselves."""

    external = False

    def keep(self, blobs: Sequence[Blob]) -> list[bytes]:
        """Return the bytes, which are the entries."""
        return [blob.content for blob in blobs]

    def fetch(self, entries: Sequence[Blob | None]) -> list[bytes | None]:
        """Return the entries, which are the bytes."""
        return [None if entry is None else entry.content for entry in entries]

    def copy(self, entries: Sequence[Blob], target: str) -> bool:
        """Do nothing: copying the entry copies the bytes."""
        return True

    def drop(self, entries: Sequence[Blob]) -> None:
        """Do nothing: there are no bytes outside the entry."""

    def clear(self, detection_id: str) -> None:
        """Do nothing: there are no bytes outside the entry."""

    def check(self) -> None:
        """Do nothing: callers check Redis themselves."""

    def stop_retrying(self) -> None:
        """Do nothing: the Redis client has its own retries."""


def blobs_of(settings: Settings, retry_for: float) -> Blobs:
    """Create the storage that the settings select.

    Args:
        settings: settings of this process.
        retry_for: seconds to retry while the bucket is unavailable.

    Raises:
        StorageSetupError: If `GAMMA_STORE` is set and the extra `s3` is not installed.
    """
    if settings.store is None:
        return RedisBlobs()
    try:
        from app.contract.bucket import BucketBlobs
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "botocore", "cryptography", "fsspec", "s3fs"):
            raise
        raise StorageSetupError from None
    return BucketBlobs(settings.store, retry_for)
