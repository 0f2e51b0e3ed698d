"""Storage of detections in Redis: records, and pictures and masks or their locations.

The record of a detection is a hash that outlives its picture and masks, to report the status
`expired`. Scripts guard all status changes, so that late workers cannot restore finished or
deleted detections. Each owner has an index of its records by time, and entries that identify
repeated requests and known pictures; they expire with the records.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from redis import Redis
from redis.client import Pipeline
from rq.utils import utcformat

from app.contract import records, scripts
from app.contract.blobs import Blob, Blobs, RedisBlobs, blobs_of
from app.contract.recorder import CommandRecorder
from app.contract.reservation import reservation
from app.contract.schemas import Detection, DetectionError, Head, Status
from app.contract.settings import Settings
from app.contract.submission import Acceptance, Submission
from app.contract.workers import WorkerRegistry
from pictures.origin import Provenance

FINISHED_CHANNEL = "gamma:finished"
"""Pub/sub channel; a message is `ID ENDING`, see `records.read_ending`."""

_UPLOAD_LIFE = 60_000  # ms; lifetime of a picture without a record, if this process is killed


class KeptMasks(NamedTuple):
    """Stored masks that are not yet part of their detection."""

    entries: dict[Head, bytes]
    size: int
    """bytes"""


class Store:
    """Detections in Redis, their pictures and masks there or in a bucket.

    Thread-safe. With a bucket, methods that read or write pictures or masks raise
    `StorageUnavailableError` if it is unavailable.
    """

    def __init__(
        self, redis: Redis, blobs: Blobs | None = None, *, storage_limit: float = 1.0
    ) -> None:
        self.redis = redis
        self.blobs = RedisBlobs() if blobs is None else blobs
        self.workers = WorkerRegistry(redis)
        self._storage_limit = storage_limit

    @classmethod
    def open(cls, redis: Redis, settings: Settings, *, retry_for: float = 1.0) -> Store:
        """Create the store that the settings describe.

        Args:
            redis: connected client.
            settings: settings of this process.
            retry_for: seconds to retry while the bucket is unavailable.

        Raises:
            StorageSetupError: If `GAMMA_STORE` is set and the extra `s3` is not installed.
        """
        return cls(redis, blobs_of(settings, retry_for), storage_limit=settings.storage_limit)

    def recorder(self) -> CommandRecorder:
        """A recorder for the commands that a script runs when it accepts or deletes a detection."""
        return CommandRecorder(self.redis)

    def accept(self, submissions: Sequence[Submission]) -> None:
        """Store pictures and queue their detections, in one transaction.

        Sets `outcome` and `answer` of each; deletes the pictures of those not accepted.
        """
        entries = self.blobs.keep([Blob(one.detection.id, one.picture) for one in submissions])
        with self.redis.pipeline() as pipeline:
            for one, entry in zip(submissions, entries, strict=True):
                # Not a time of this clock, which can be past by that of Redis.
                pipeline.set(self._picture_key(one), entry, nx=True, px=_UPLOAD_LIFE)
                self._accept(pipeline, one, one.job, one.delivery)
            # Without a reply they may have been accepted, so the objects are kept.
            replies = pipeline.execute()[1::2]
        refused = []
        for one, entry, reply in zip(submissions, entries, replies, strict=True):
            one.settle(reply)
            if one.outcome is not Acceptance.ACCEPTED:
                refused.append(Blob(one.detection.id, entry))
        self.blobs.drop(refused)

    def accept_known(self, submission: Submission, result: Detection) -> bool:
        """Create a detection from an earlier result, in one transaction.

        In Redis both detections hold the same bytes. Objects in a bucket are copied, because their
        lifetime depends on when they were written. Sets `outcome` and `answer`.

        Args:
            submission: its `answer` is the succeeded detection to copy from.
            result: final record of the new detection.

        Returns:
            Whether it was accepted.
        """
        owner, known, new = submission.owner, submission.answer.id, submission.detection.id
        entries: list[Blob] = []
        if self.blobs.external:
            with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.get(records.image_key(owner, known))
                pipeline.hmget(records.masks_key(owner, known), list(Head))
                image, masks = pipeline.execute()
            found = [image, *masks] if result.masks else [image]
            entries = [Blob(known, entry) for entry in found if entry is not None]
            if len(entries) < len(found) or not self.blobs.copy(entries, new):
                submission.outcome = Acceptance.GONE
                return False
        with self.redis.pipeline() as pipeline:
            source = records.key(known)
            expected = result.masks is not None
            self._accept(pipeline, submission, submission.delivery, source=source, masks=expected)
            self.finish(pipeline, result)
            submission.settle(pipeline.execute()[0])
        if submission.outcome is Acceptance.ACCEPTED:
            submission.answer = result
            return True
        self.blobs.drop([Blob(new, entry.content) for entry in entries])
        return False

    def _accept(
        self,
        pipeline: Pipeline,
        submission: Submission,
        *commands: CommandRecorder | None,
        source: str = "",
        masks: bool = True,
    ) -> None:
        """Add `ACCEPT` to `pipeline`, with the stored picture or the files of `source`.

        `masks`: whether it has, or will have, masks.
        """
        detection, owner = submission.detection, submission.owner
        key = submission.idempotency_key
        record_lifetime = records.RECORD_LIFETIMES * submission.lifetime
        keys = [
            records.key(detection.id),
            records.index_key(owner),
            records.cache_key(owner, detection) if submission.cache else "",
            "" if key is None else records.idempotency_key(owner, key),
            records.MODEL_KEY,
            records.WAITING_KEY,
            self._picture_key(submission),
            records.masks_key(owner, detection.id) if masks else "",
            source,
        ]
        arguments = [
            detection.id,
            owner,
            detection.model_dump_json(exclude={"status"}),
            submission.deadline.timestamp(),
            records.milliseconds(detection.created_at + record_lifetime),
            records.member(detection.created_at, detection.id),
            records.member(detection.created_at - record_lifetime),
            submission.fingerprint(),
            int(submission.cache and not source),
            records.milliseconds(detection.expires_at),
            detection.image.bytes,
            int(self.blobs.external),
            detection.created_at.timestamp(),
            submission.turn,
            reservation(detection, external=self.blobs.external),
            self._storage_limit,
            submission.weight,
            *(word for one in commands if one is not None for word in one.words()),
        ]
        scripts.ACCEPT(keys, arguments, client=pipeline)

    def _picture_key(self, submission: Submission) -> str:
        detection = submission.detection
        name = detection.id if self.blobs.external else detection.image.sha256
        return records.image_key(submission.owner, name)

    def get(self, detection_id: str) -> Detection | None:
        """Get the current record; an expired one has the status `expired` and no results."""
        return records.read(
            cast(list[bytes | None], self.redis.hmget(records.key(detection_id), records.FIELDS))
        )

    def get_owned(self, detection_ids: Sequence[str], owner: str) -> list[Detection | None]:
        """Get current records, in one round trip; None for those of other owners."""
        return self.get_each([(detection_id, owner) for detection_id in detection_ids])

    def get_each(self, wanted: Sequence[tuple[str, str]]) -> list[Detection | None]:
        """As `get_owned`, for pairs of id and owner."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for detection_id, _ in wanted:
                pipeline.hmget(records.key(detection_id), [*records.FIELDS, "owner"])
            found = cast(list[list[bytes | None]], pipeline.execute())
        return [
            records.read(values) if whose == owner.encode() else None
            for (_, owner), (*values, whose) in zip(wanted, found, strict=True)
        ]

    def delete(self, detection_id: str, owner: str, commands: CommandRecorder) -> bool:
        """Delete a detection with its picture and masks, and publish its end.

        Args:
            detection_id: id of the detection.
            owner: name of the caller.
            commands: commands that remove its job; run if it is waiting.

        Returns:
            False if the owner has no such detection.
        """
        unfinished = False
        if self.blobs.external:
            (detection,) = self.get_owned([detection_id], owner)
            if detection is None:
                return False
            unfinished = not detection.status.finished
            # Before the record, so that the caller can repeat the request if the bucket fails.
            self.blobs.clear(detection_id)
        keys = [records.index_key(owner), records.key(detection_id), records.WAITING_KEY]
        arguments = [owner, detection_id, FINISHED_CHANNEL, *commands.words()]
        found = bool(scripts.DELETE(keys, arguments, client=self.redis))
        if unfinished:  # a worker may have finished it meanwhile
            self.blobs.clear(detection_id)
        return found

    def get_image(self, detection_id: str) -> bytes | None:
        """The uploaded file; None if it was deleted."""
        return self.get_images([detection_id])[0]

    def get_mask(self, detection_id: str, head: Head) -> bytes | None:
        """The mask as an 8-bit grey PNG of the picture's size; None if there is none."""
        (holding,) = self._holdings([detection_id], "masks")
        if holding is None:
            return None
        entry = cast(bytes | None, self.redis.hget(records.holding_key(holding), head))
        return self._fetch([detection_id], [entry])[0]

    def check(self) -> None:
        """Check that pictures can be stored; raises the error of Redis or the bucket if not."""
        self.redis.set(records.PROBE_KEY, b"", px=1000)
        self.blobs.check()

    def start(self, detection_ids: Sequence[str]) -> dict[str, Detection]:
        """Mark detections as processing, in one round trip.

        Returns:
            Records by id, without those that are finished, deleted or past their deadline.
        """
        now = time.time()
        with self.redis.pipeline(transaction=False) as pipeline:
            for detection_id in detection_ids:
                keys = records.key(detection_id), records.WAITING_KEY
                scripts.START(keys, [now, detection_id], client=pipeline)
            found = pipeline.execute()
        return {
            detection_id: records.parse(record, Status.PROCESSING)
            for detection_id, record in zip(detection_ids, found, strict=True)
            if record is not None
        }

    def get_images(self, detection_ids: Sequence[str]) -> list[bytes | None]:
        """The uploaded files, in two round trips; None for deleted ones."""
        holdings = self._holdings(detection_ids, "image")
        keys = [records.holding_key(holding or b"") for holding in holdings]
        return self._fetch(detection_ids, cast(list[bytes | None], self.redis.mget(keys)))

    def _holdings(self, detection_ids: Sequence[str], part: str) -> list[bytes | None]:
        """Holdings of detections; `part` is `image` or `masks`."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for detection_id in detection_ids:
                pipeline.hget(records.key(detection_id), part)
            return cast(list[bytes | None], pipeline.execute())

    def _fetch(
        self, detection_ids: Sequence[str], entries: Sequence[bytes | None]
    ) -> list[bytes | None]:
        """The bytes of entries."""
        return self.blobs.fetch(
            [
                None if entry is None else Blob(detection_id, entry)
                for detection_id, entry in zip(detection_ids, entries, strict=True)
            ]
        )

    def keep_masks(self, masks: Mapping[str, Mapping[Head, bytes]]) -> dict[str, KeptMasks]:
        """Store the masks (PNG) of detections, for `finish`."""
        places = [(one, head) for one, heads in masks.items() for head in heads]
        entries = self.blobs.keep([Blob(one, masks[one][head]) for one, head in places])
        kept = {one: KeptMasks({}, sum(map(len, heads.values()))) for one, heads in masks.items()}
        for (one, head), entry in zip(places, entries, strict=True):
            kept[one].entries[head] = entry
        return kept

    def drop_masks(self, kept: Mapping[str, KeptMasks]) -> None:
        """Delete masks that `finish` has not added to their detections.

        Its reply does not show which: a command repeated after a lost reply returns 0.
        """
        if not self.blobs.external or not kept:
            return
        holdings = self._holdings(list(kept), "masks")
        with self.redis.pipeline(transaction=False) as pipeline:
            for holding in holdings:
                pipeline.hvals(records.holding_key(holding or b""))
            taken = cast(list[list[bytes]], pipeline.execute())
        self.blobs.drop(
            [
                Blob(one, entry)
                for (one, masks), entries in zip(kept.items(), taken, strict=True)
                for entry in masks.entries.values()
                if entry not in entries
            ]
        )

    def finish(
        self, pipeline: Pipeline, detection: Detection, masks: KeptMasks | None = None
    ) -> None:
        """Add the command that writes and publishes a final record to `pipeline`.

        It replies 1, or 0 without any change if the detection is finished or deleted already.

        Args:
            pipeline: executed by the caller.
            detection: final record.
            masks: from `keep_masks`.
        """
        masks = masks or KeptMasks({}, 0)
        model = records.model_tag(detection.model)
        name = detection.id
        if not self.blobs.external:
            picture, view = detection.image.sha256, detection.view.asked
            name = records.digest(picture, view, model, str(masks.size))
        arguments: list[Any] = [
            detection.status.value,
            detection.model_dump_json(exclude={"status"}),
            model,
            detection.id,
            FINISHED_CHANNEL,
            records.milliseconds(detection.expires_at),
            utcformat(datetime.now(UTC)),
            name,
            masks.size,
            *(word for mask in masks.entries.items() for word in mask),
        ]
        scripts.FINISH([records.key(detection.id)], arguments, client=pipeline)

    def fail(
        self, detection_id: str, error: DetectionError, provenance: Provenance | None = None
    ) -> bool:
        """End a detection as failed.

        Args:
            detection_id: which.
            error: why.
            provenance: provenance of its file, if it was read.

        Returns:
            False if it is final or deleted already.
        """
        detection = self.get(detection_id)
        if detection is None or detection.status.finished:
            return False
        failed = detection.model_copy(
            update={
                "status": Status.FAILED,
                "error": error,
                "provenance": provenance,
                "finished_at": datetime.now(UTC),
            }
        )
        with self.redis.pipeline() as pipeline:
            self.finish(pipeline, failed)
            (changed,) = pipeline.execute()
        return bool(changed)
