"""What the doctor finds where pictures and masks lie, if that is not Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from app.command.doctor.findings import Finding, note, ok, wrong
from app.contract.blobs import Blob, StorageSetupError, StorageUnavailableError, blobs_of
from app.contract.settings import Settings

if TYPE_CHECKING:
    from app.contract.bucket import BucketBlobs

_PROBE = Blob("doctor", b"probe")
_DAY = 86_400  # s


def bucket(settings: Settings) -> list[Finding]:
    """Whether its objects can be used as they have to be, and go when their time is over."""
    if settings.store is None:
        return []
    try:
        blobs = cast("BucketBlobs", blobs_of(settings, 0.0))
    except StorageSetupError as error:
        return [wrong("bucket", "the library that reaches it is not installed", str(error))]
    try:
        _use(blobs)
    except StorageUnavailableError as error:
        return [
            wrong(
                "bucket",
                f"{settings.store} cannot be used: {error}",
                "see the bucket's name, AWS_ENDPOINT_URL (an S3 not Amazon's), AWS_REGION "
                "and the credentials; needed are s3:ListBucket on the bucket and s3:GetObject, "
                "s3:PutObject, s3:DeleteObject on its objects",
            )
        ]
    try:
        found = _set_up(blobs, settings)
    except StorageUnavailableError as error:
        return [
            note(
                "bucket",
                f"{settings.store} can be used, and does not say how it is set up: {error}",
                "see that it keeps no old versions and that a lifecycle rule removes objects: "
                "docs/deployment.md; or allow s3:GetBucketVersioning and "
                "s3:GetLifecycleConfiguration",
            )
        ]
    return found or [ok("bucket", f"{settings.store}, read and written")]


def _use(blobs: BucketBlobs) -> None:
    """Do with a probe what is done with pictures."""
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
                "it keeps old versions: what is deleted stays, unreadable, and takes room",
                "use a bucket on which versioning was never switched on",
            )
        )
    days = blobs.lifetime()
    least = -(-settings.retention // _DAY)
    if days is None:
        found.append(
            wrong(
                "bucket",
                "no lifecycle rule removes its objects: they stay when their time is over",
                f"add a rule that expires objects of `{blobs.prefix}` after {least} day(s): "
                "docs/deployment.md",
            )
        )
    elif days < least:
        found.append(
            wrong(
                "bucket",
                f"a lifecycle rule removes objects after {days} day(s), before their time",
                f"let it be {least}, or shorten GAMMA_RETENTION",
            )
        )
    return found
