"""Where the bytes of pictures and masks lie: in Redis, or in a bucket beside it.

What stands for them in Redis, an entry, is kept under the key of the picture or mask and has its
time there. In Redis itself it is the bytes; else it is the name of an object and the key that
decrypts it. So expiry, copies and what is written in one step with a record are Redis's affair
either way: whatever it has no entry for is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.contract.settings import Settings


class StorageUnavailableError(Exception):
    """The bucket cannot be reached, or refuses: an outage, and no fault of what was to be done."""


class StorageSetupError(RuntimeError):
    """`GAMMA_STORE` is set, and what it needs is not installed."""

    def __init__(self) -> None:
        super().__init__("GAMMA_STORE needs the extra `s3`: pip install 'gamma-detect[s3]'")


class Blob(NamedTuple):
    """Bytes of a detection, or the entry that stands for them."""

    detection_id: str
    content: bytes


class Blobs(Protocol):
    """Keeps bytes. Safe to share between threads; only `external` ones raise."""

    @property
    def external(self) -> bool:
        """Whether they lie elsewhere than in Redis, so that they outlive their entries."""

    def keep(self, blobs: Sequence[Blob]) -> list[bytes]:
        """Keep bytes.

        Returns:
            Their entries.

        Raises:
            StorageUnavailableError: some may be kept nevertheless.
        """

    def fetch(self, entries: Sequence[Blob | None]) -> list[bytes | None]:
        """The bytes of entries; None for none, and for what is gone.

        Raises:
            StorageUnavailableError: see there.
        """

    def copy(self, entries: Sequence[Blob], target: str) -> bool:
        """Let entries stand for the same bytes of another detection too.

        Returns:
            False if any of the bytes are gone.

        Raises:
            StorageUnavailableError: some may be copied nevertheless.
        """

    def drop(self, entries: Sequence[Blob]) -> None:
        """Remove the bytes of entries that Redis has not taken; what cannot be is left over."""

    def clear(self, detection_id: str) -> None:
        """Remove all bytes of a detection, left over or not.

        Raises:
            StorageUnavailableError: some may be removed nevertheless.
        """

    def check(self) -> None:
        """See that bytes could be kept now.

        Raises:
            StorageUnavailableError: they could not.
        """

    def stop_retrying(self) -> None:
        """Wait for no outage to end from now on: this process is about to."""


class RedisBlobs:
    """Bytes in Redis: an entry is the bytes themselves, and what removes it removes them."""

    external = False

    def keep(self, blobs: Sequence[Blob]) -> list[bytes]:
        """As they are."""
        return [blob.content for blob in blobs]

    def fetch(self, entries: Sequence[Blob | None]) -> list[bytes | None]:
        """As they are."""
        return [None if entry is None else entry.content for entry in entries]

    def copy(self, entries: Sequence[Blob], target: str) -> bool:
        """The entry is copied, and so are they."""
        return True

    def drop(self, entries: Sequence[Blob]) -> None:
        """They are gone already."""

    def clear(self, detection_id: str) -> None:
        """They are gone already."""

    def check(self) -> None:
        """Whoever asks has an answer of Redis."""

    def stop_retrying(self) -> None:
        """The client of Redis has its own retries."""


def blobs_of(settings: Settings, retry_for: float) -> Blobs:
    """Where the settings want bytes to lie.

    Args:
        settings: those of this process.
        retry_for: seconds that an outage of the bucket is waited out.

    Raises:
        StorageSetupError: see there.
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
