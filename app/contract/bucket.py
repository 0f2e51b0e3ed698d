"""Pictures and masks as objects of an S3 bucket: `PREFIX/DETECTION/NAME`.

An object is written once, under a name that no other has, and never replaced: a worker that comes
late spoils nothing. It is encrypted with a key of its own, which stands in Redis alone, beside the
object's name: whatever the bucket and its backups keep of a picture that is deleted or has expired
can be read by nobody. Endpoint, region and credentials are found where AWS's own tools find them.
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
_READ_TIMEOUT = 10.0  # s; without a byte
_CONNECTIONS = 32
_TRIES = 2  # at least, however long one takes
_PAUSE = 0.5  # s; from one try to the next
_LOGGED = 30.0  # s; from one line of the log to the next
_NO_OBJECT = "NoSuchKey"
_KEY_BITS = 256  # AES-GCM
_NONCE = 12  # bytes, before what is encrypted
_NAME = 32  # bytes of an entry; the others are the key
_FAILURES = (OSError, BotoCoreError, aiohttp.ClientError)

T = TypeVar("T")

log = structlog.get_logger()


class BucketBlobs:
    """Bytes in a bucket; an entry is the name of an object among those of its detection, and a key.

    Encryption runs in the thread that asks, at some 2 GB/s.
    """

    external = True

    def __init__(self, url: str, retry_for: float) -> None:
        """Nothing is asked of the bucket yet.

        Args:
            url: `s3://BUCKET[/PREFIX]`.
            retry_for: seconds that an outage is waited out.
        """
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix}/" if (prefix := prefix.strip("/")) else ""
        self._retry_for = retry_for
        self._logged = float("-inf")
        self._s3 = S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            max_concurrency=1,  # an object is read in one request
            config_kwargs={
                "connect_timeout": _CONNECT_TIMEOUT,
                "read_timeout": _READ_TIMEOUT,
                "max_pool_connections": _CONNECTIONS,
                "retries": {"max_attempts": 0},  # `_patiently` tries again
            },
        )
        self._s3.retries = 1

    # -- what `Blobs` promises -----------------------------------------------------------------

    def keep(self, blobs: Sequence[Blob]) -> list[bytes]:
        """Each in an object of its own, all at once."""
        entries = [Blob(blob.detection_id, _new_entry()) for blob in blobs]
        self._all(
            partial(self._write, self._key(entry), _encrypted(blob.content, entry.content))
            for entry, blob in zip(entries, blobs, strict=True)
        )
        return [entry.content for entry in entries]

    def fetch(self, entries: Sequence[Blob | None]) -> list[bytes | None]:
        """All at once."""
        found = iter(self._all(partial(self._read, self._key(one)) for one in entries if one))
        return [
            self._decrypted(content, entry)
            if entry and (content := next(found)) is not None
            else None
            for entry in entries
        ]

    def copy(self, entries: Sequence[Blob], target: str) -> bool:
        """Inside the bucket: the bytes do not pass through here."""
        return all(
            self._all(
                partial(self._copy, self._key(entry), self._key(Blob(target, entry.content)))
                for entry in entries
            )
        )

    def drop(self, entries: Sequence[Blob]) -> None:
        """What cannot be removed now, the bucket's lifecycle rule removes."""
        try:
            self._all(partial(self._delete, self._key(entry)) for entry in entries)
        except StorageUnavailableError as error:
            log.warning("objects_left_over", objects=len(entries), error=str(error))

    def clear(self, detection_id: str) -> None:
        """Those that were left over are among them."""
        (keys,) = self._all([partial(self._list, f"{self.prefix}{detection_id}/")])
        self._all(partial(self._delete, key) for key in keys)

    def check(self) -> None:
        """Ask for any object: name, credentials and network are right if there is an answer."""
        self._all([partial(self._list, self.prefix, 1)])

    def stop_retrying(self) -> None:
        """Of what is under way, too."""
        self._retry_for = 0.0

    # -- how the bucket is set up --------------------------------------------------------------

    def versioned(self) -> bool:
        """Whether it keeps what is removed, as old versions.

        Raises:
            StorageUnavailableError: it does not say.
        """
        (answer,) = self._all([partial(self._call, "get_bucket_versioning")])
        return "Status" in answer

    def lifetime(self) -> int | None:
        """Days after which a lifecycle rule removes our objects; None if there is no such rule.

        Raises:
            StorageUnavailableError: it does not say.
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
        """What was encrypted for an entry; None if somebody has changed it."""
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
        """Send requests at the same time, and wait until each has ended; the first error counts."""
        return cast(list[T], sync(self._s3.loop, self._gathered, list(requests)))

    async def _gathered(self, requests: list[Callable[[], Awaitable[T]]]) -> list[T]:
        ends = await asyncio.gather(*map(self._patiently, requests), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return cast(list[T], ends)

    async def _patiently(self, request: Callable[[], Awaitable[T]]) -> T:
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                return await request()
            except _FAILURES as error:
                if tries >= _TRIES and time.monotonic() - began >= self._retry_for:
                    reason = f"{type(error).__name__}: {error}"
                    raise StorageUnavailableError(reason) from error
                if time.monotonic() - self._logged > _LOGGED:
                    self._logged = time.monotonic()
                    log.warning("storage_unavailable", error=str(error))
            await asyncio.sleep(_PAUSE)


def _new_entry() -> bytes:
    return uuid.uuid4().hex.encode() + AESGCM.generate_key(_KEY_BITS)


def _encrypted(content: bytes, entry: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(entry[_NAME:]).encrypt(nonce, content, entry[:_NAME])


def _code(error: FileNotFoundError) -> str | None:
    """S3's own: s3fs has one exception for objects that are not there and for buckets."""
    response = getattr(error.__cause__, "response", {})
    return cast(str | None, response.get("Error", {}).get("Code"))
