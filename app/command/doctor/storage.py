"""Checks of `gamma doctor` on the bucket of pictures and masks, and the database of reviews."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy.exc import SQLAlchemyError

from app.command.doctor.findings import Finding, note, ok, wrong
from app.contract.blobs import Blob, StorageSetupError, StorageUnavailableError, blobs_of
from app.contract.settings import Settings
from app.reviews.database import Database, DatabaseUrlError

if TYPE_CHECKING:
    from app.contract.bucket import BucketBlobs

_PROBE = Blob("doctor", b"probe")
_DAY = 86_400  # s


def bucket(settings: Settings) -> list[Finding]:
    """Check access to the bucket, its versioning and its lifecycle rule."""
    if settings.store is None:
        return []
    try:
        blobs = cast("BucketBlobs", blobs_of(settings, 0.0))
    except StorageSetupError as error:
        return [wrong("bucket", "the S3 library is not installed", str(error))]
    try:
        _use(blobs)
    except StorageUnavailableError as error:
        return [
            wrong(
                "bucket",
                f"{settings.store} cannot be used: {error}",
                "check the bucket's name, AWS_ENDPOINT_URL (for S3 servers other than Amazon's), "
                "AWS_REGION and the credentials; required: s3:ListBucket on the bucket and "
                "s3:GetObject, s3:PutObject, s3:DeleteObject on its objects",
            )
        ]
    try:
        found = _set_up(blobs, settings)
    except StorageUnavailableError as error:
        return [
            note(
                "bucket",
                f"{settings.store} can be used, but its configuration cannot be read: {error}",
                "check that versioning is off and that a lifecycle rule removes objects: "
                "docs/deployment.md; or allow s3:GetBucketVersioning and "
                "s3:GetLifecycleConfiguration",
            )
        ]
    return found or [ok("bucket", f"{settings.store}, readable and writable")]


def reviews(settings: Settings) -> list[Finding]:
    """Check access to the database of reviews, and the version of its tables."""
    try:
        database = Database(settings)
    except DatabaseUrlError as error:
        return [wrong("reviews", str(error), "correct it: docs/reviews.md")]
    if settings.database_url is None and not (settings.data_dir / "reviews.db").exists():
        return [ok("reviews", f"{database.place}, created by the API")]
    try:
        current = database.is_current()
    except SQLAlchemyError as error:
        return [
            wrong(
                "reviews",
                f"{database.place} cannot be used: {database.described(error)}",
                "correct GAMMA_DATABASE_URL, or start the database; until then reviews get 503, "
                "and detections are not affected",
            )
        ]
    finally:
        database.close()
    tables = "tables are current" if current else "the API creates or upgrades the tables"
    return [ok("reviews", f"{database.place}, {tables}")]


def _use(blobs: BucketBlobs) -> None:
    """Write, read, copy and delete a probe object.

    Raises:
        StorageUnavailableError: If one of these fails.
    """
    (name,) = blobs.keep([_PROBE])
    entry = Blob(_PROBE.detection_id, name)
    blobs.fetch([entry])
    blobs.copy([entry], f"{_PROBE.detection_id}-copy")
    blobs.clear(f"{_PROBE.detection_id}-copy")
    blobs.clear(_PROBE.detection_id)


def _set_up(blobs: BucketBlobs, settings: Settings) -> list[Finding]:
    found = []
    if blobs.versioned():
        found.append(
            wrong(
                "bucket",
                "versioning is on: deleted objects stay as old versions, unreadable, and use space",
                "use a bucket on which versioning was never enabled",
            )
        )
    days = blobs.lifetime()
    least = -(-settings.retention // _DAY)
    if days is None:
        found.append(
            wrong(
                "bucket",
                "no lifecycle rule removes objects: they stay after the retention time",
                f"add a rule that expires objects of `{blobs.prefix}` after {least} day(s): "
                "docs/deployment.md",
            )
        )
    elif days < least:
        found.append(
            wrong(
                "bucket",
                f"a lifecycle rule removes objects after {days} day(s), before the retention time",
                f"set it to {least} day(s), or shorten GAMMA_RETENTION",
            )
        )
    return found
