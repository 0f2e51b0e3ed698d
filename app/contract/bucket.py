"""Pictures and masks as objects in an S3 bucket: `PREFIX/DETECTION/NAME`.

Each object has a unique name and is never overwritten, so late workers do no harm. It is encrypted
with its own key, which only Redis has, so what the bucket and its backups keep of deleted and
expired pictures is unreadable. Endpoint, region and credentials are configured as for AWS tools.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import aiohttp
import structlog
from botocore.exceptions import BotoCoreError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fsspec.asyn import sync
from s3fs import S3FileSystem

from app.contract.blobs import Blob, StorageUnavailableError

_CONNECT_TIMEOUT = 5.0  # s
_READ_TIMEOUT = 10.0  # s, between two bytes
_CONNECTIONS = 32
_MIN_ATTEMPTS = 2
_PAUSE = 0.5  # s, between attempts
_LOG_INTERVAL = 30.0  # s
_NO_OBJECT = "NoSuchKey"
_KEY_BITS = 256  # AES-GCM
_NONCE = 12  # bytes, in front of the ciphertext
_NAME = 32  # bytes of an entry; the rest is the key
_FAILURES = (OSError, BotoCoreError, aiohttp.ClientError)

T = TypeVar("T")

log = structlog.get_logger()


class BucketBlobs:
    """Storage in a bucket; an entry is the name of an object and its key.

    Encryption runs in the calling thread, at about 2 GB/s.
    """

    external = True

    def __init__(self, url: str, retry_for: float) -> None:
        """Create the client; sends no request.

        Args:
            url: `s3://BUCKET[/PREFIX]`.
            retry_for: seconds to retry while the bucket is unavailable.
        """
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix}/" if (prefix := prefix.strip("/")) else ""
        self._retry_for = retry_for
        self._last_log = float("-inf")
        self._s3 = S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            max_concurrency=1,  # read an object in one request
            config_kwargs={
                "connect_timeout": _CONNECT_TIMEOUT,
                "read_timeout": _READ_TIMEOUT,
                "max_pool_connections": _CONNECTIONS,
                "retries": {"max_attempts": 0},  # `_retrying` does it
            },
        )
        self._s3.retries = 1

    # -- the interface `Blobs` -----------------------------------------------------------------

    def keep(self, blobs: Sequence[Blob]) -> list[bytes]:
        """Write one object per blob, concurrently."""
        entries = [Blob(blob.detection_id, _new_entry()) for blob in blobs]
        self._all(
            partial(self._write, self._key(entry), _encrypted(blob.content, entry.content))
            for entry, blob in zip(entries, blobs, strict=True)
        )
        return [entry.content for entry in entries]

    def fetch(self, entries: Sequence[Blob | None]) -> list[bytes | None]:
        """Read objects concurrently."""
        found = iter(self._all(partial(self._read, self._key(one)) for one in entries if one))
        return [
            self._decrypted(content, entry)
            if entry and (content := next(found)) is not None
            else None
            for entry in entries
        ]

    def copy(self, entries: Sequence[Blob], target: str) -> bool:
        """Copy objects inside the bucket, without downloading them."""
        return all(
            self._all(
                partial(self._copy, self._key(entry), self._key(Blob(target, entry.content)))
                for entry in entries
            )
        )

    def drop(self, entries: Sequence[Blob]) -> None:
        """Delete objects; if that fails, the bucket's lifecycle rule deletes them later."""
        try:
            self._all(partial(self._delete, self._key(entry)) for entry in entries)
        except StorageUnavailableError as error:
            log.warning("objects_left_over", objects=len(entries), error=str(error))

    def clear(self, detection_id: str) -> None:
        """Delete all objects of a detection."""
        (keys,) = self._all([partial(self._list, f"{self.prefix}{detection_id}/")])
        self._all(partial(self._delete, key) for key in keys)

    def check(self) -> None:
        """List one object, which checks name, credentials and network."""
        self._all([partial(self._list, self.prefix, 1)])

    def stop_retrying(self) -> None:
        """Fail at once during outages, also in running calls."""
        self._retry_for = 0.0

    # -- configuration of the bucket -----------------------------------------------------------

    def versioned(self) -> bool:
        """Whether versioning was ever enabled.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        (answer,) = self._all([partial(self._call, "get_bucket_versioning")])
        return "Status" in answer

    def lifetime(self) -> int | None:
        """Days after which a lifecycle rule deletes our objects; None if there is no such rule.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        (rules,) = self._all([self._rules])
        days = [
            rule["Expiration"]["Days"]
            for rule in rules
            if rule["Status"] == "Enabled"
            and "Days" in rule.get("Expiration", {})
            and self.prefix.startswith(rule.get("Filter", rule).get("Prefix", ""))
            and not {"Tag", "And"} & rule.get("Filter", {}).keys()
        ]
        return min(days, default=None)

    # -- single requests -----------------------------------------------------------------------

    def _key(self, entry: Blob) -> str:
        return f"{self.prefix}{entry.detection_id}/{entry.content[:_NAME].decode()}"

    def _decrypted(self, content: bytes, entry: Blob) -> bytes | None:
        """Decrypt the object of an entry; None if it is damaged."""
        name, key = entry.content[:_NAME], entry.content[_NAME:]
        try:
            return AESGCM(key).decrypt(content[:_NONCE], content[_NONCE:], name)
        except (InvalidTag, ValueError):
            log.error("object_damaged", key=self._key(entry))
            return None

    async def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        return cast(
            dict[str, Any], await self._s3._call_s3(method, Bucket=self.bucket, **arguments)
        )

    async def _write(self, key: str, content: bytes) -> None:
        await self._s3._pipe_file(f"{self.bucket}/{key}", content)

    async def _read(self, key: str) -> bytes | None:
        try:
            return cast(bytes, await self._s3._cat_file(f"{self.bucket}/{key}"))
        except FileNotFoundError as error:
            if _code(error) != _NO_OBJECT:
                raise
            log.error("object_missing", key=key)
            return None

    async def _copy(self, source: str, target: str) -> bool:
        try:
            origin = {"Bucket": self.bucket, "Key": source}
            await self._call("copy_object", Key=target, CopySource=origin)
        except FileNotFoundError as error:
            if _code(error) != _NO_OBJECT:
                raise
            return False
        return True

    async def _delete(self, key: str) -> None:
        await self._call("delete_object", Key=key)

    async def _list(self, prefix: str, most: int = 1000) -> list[str]:
        answer = await self._call("list_objects_v2", Prefix=prefix, MaxKeys=most)
        return [entry["Key"] for entry in answer.get("Contents", ())]

    async def _rules(self) -> list[dict[str, Any]]:
        try:
            answer = await self._call("get_bucket_lifecycle_configuration")
        except FileNotFoundError as error:
            if _code(error) != "NoSuchLifecycleConfiguration":
                raise
            return []
        return cast(list[dict[str, Any]], answer["Rules"])

    # -- retries -------------------------------------------------------------------------------

    def _all(self, requests: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
        """Send requests concurrently and wait for all of them.

        Raises:
            StorageUnavailableError: If a request keeps failing.
        """
        return cast(list[T], sync(self._s3.loop, self._gathered, list(requests)))

    async def _gathered(self, requests: list[Callable[[], Awaitable[T]]]) -> list[T]:
        results = await asyncio.gather(*map(self._retrying, requests), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return cast(list[T], results)

    async def _retrying(self, request: Callable[[], Awaitable[T]]) -> T:
        started = time.monotonic()
        attempts = 0
        while True:
            attempts += 1
            try:
                return await request()
            except _FAILURES as error:
                if attempts >= _MIN_ATTEMPTS and time.monotonic() - started >= self._retry_for:
                    reason = f"{type(error).__name__}: {error}"
                    raise StorageUnavailableError(reason) from error
                if time.monotonic() - self._last_log > _LOG_INTERVAL:
                    self._last_log = time.monotonic()
                    log.warning("storage_unavailable", error=str(error))
            await asyncio.sleep(_PAUSE)


def _new_entry() -> bytes:
    return uuid.uuid4().hex.encode() + AESGCM.generate_key(_KEY_BITS)


def _encrypted(content: bytes, entry: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(entry[_NAME:]).encrypt(nonce, content, entry[:_NAME])


def _code(error: FileNotFoundError) -> str | None:
    """Error code of S3, which distinguishes missing objects from missing buckets."""
    response = getattr(error.__cause__, "response", {})
    return cast(str | None, response.get("Error", {}).get("Code"))
