"""Everything GAMMA keeps in Redis: key names, records, pictures, masks and live workers.

A detection's record is a hash that outlives its picture and masks, so that an expired detection
can say so. Status changes are guarded inside Redis: a finished or removed detection is never
brought back by a worker that comes late. Beside the records lie, for each owner, an index of them
in order of time, and entries by which a repeated request or a known picture is recognised; all of
it ends with the records.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from rq.utils import utcformat

from app import records, scripts
from app.client import Client
from app.schemas import (
    Detection,
    DetectionError,
    Head,
    Status,
    WorkerInfo,
)

FINISHED_CHANNEL = "gamma:finished"
"""Pub/sub channel; each message is the id of a detection that became final or was deleted."""


def connect(url: str, *, retries: int = 4, timeout: float = 10.0) -> Redis:
    """Client that tries a broken connection again before it raises.

    Args:
        url: `redis://`, `rediss://` or `unix://` URL.
        retries: after growing pauses of at most half a second; 4 take about a second in all.
        timeout: seconds that each try waits for an answer; half of it for a connection.
    """
    return Client.from_url(
        url,
        socket_connect_timeout=timeout / 2,
        socket_timeout=timeout,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=retries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )


@dataclass(frozen=True)
class Application:
    """A detection that asks to be accepted.

    Attributes:
        detection: its record, queued.
        owner: the caller, who alone will see it.
        deadline: from then on a detection that still waits in the queue is expired.
        idempotency_key: the caller's name for this request, if it gave one.
        webhook_url: where the result is announced, if anywhere.
        cache: whether a result that the same picture already has may serve, and serve others.
    """

    detection: Detection
    owner: str
    deadline: datetime
    idempotency_key: str | None = None
    webhook_url: str | None = None
    cache: bool = True


class Reception(StrEnum):
    """What became of an application."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"  # this request was accepted before: that detection is the answer
    MISMATCH = "mismatch"  # its idempotency key belongs to another request
    KNOWN = "known"  # not accepted: that detection already has the result
    GONE = "gone"  # not accepted: that detection is no longer there to copy from


@dataclass(frozen=True)
class Page:
    """Detections of one owner, and the cursor that continues after them, if there are more."""

    detections: list[Detection]
    cursor: str | None


class Store:
    """Detections in Redis. Safe to share between threads."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    # -- the API's side ------------------------------------------------------------------------

    def accept(
        self, pipeline: Pipeline, application: Application, picture: bytes, jobs: Pipeline
    ) -> None:
        """Add to `pipeline` two commands that store a picture and its queued detection.

        The second one's reply is for `reception`. Both belong into one transaction.

        Args:
            pipeline: executed by the caller.
            application: the detection.
            picture: the upload as it came.
            jobs: commands, not executed yet, that queue the detection; they run if it is accepted.
        """
        detection = application.detection
        image_key = records.image_key(detection.id)
        pipeline.set(image_key, picture, pxat=records.milliseconds(detection.expires_at))
        self._accept(pipeline, application, look=application.cache, commands=scripts.words(jobs))

    def accept_known(
        self,
        pipeline: Pipeline,
        application: Application,
        known: Detection,
        final: Detection,
        jobs: Pipeline,
    ) -> None:
        """Add to `pipeline` two commands that make a detection which has its result already.

        The first one's reply is for `reception`. Both belong into one transaction.

        Args:
            pipeline: executed by the caller.
            application: the detection.
            known: the succeeded detection whose picture and masks are copied.
            final: the record with the result.
            jobs: commands, not executed yet, that announce it; they run if it is accepted.
        """
        new = application.detection.id
        copies = [records.image_key(known.id), records.image_key(new)]
        for head in Head:
            copies += [records.mask_key(known.id, head), records.mask_key(new, head)]
        self._accept(pipeline, application, copies=copies, commands=scripts.words(jobs))
        self.finish(pipeline, final)

    def _accept(
        self,
        pipeline: Pipeline,
        application: Application,
        *,
        look: bool = False,
        copies: Sequence[str] = (),
        commands: Iterable[Any] = (),
    ) -> None:
        detection, owner = application.detection, application.owner
        key = application.idempotency_key
        lifetime = detection.expires_at - detection.created_at
        keys = [
            records.key(detection.id),
            records.image_key(detection.id),
            records.index_key(owner),
            records.cache_key(owner, detection) if application.cache else "",
            "" if key is None else records.idempotency_key(owner, key),
            records.MODEL_KEY,
            *copies,
        ]
        arguments = [
            owner,
            detection.model_dump_json(exclude={"status"}),
            application.deadline.timestamp(),
            records.milliseconds(detection.created_at + records.RECORD_LIFETIMES * lifetime),
            records.member(detection.created_at, detection.id),
            records.member(detection.created_at - records.RECORD_LIFETIMES * lifetime),
            records.digest(
                detection.image.sha256,
                detection.view.mode,
                detection.ref_id,
                application.webhook_url,
            ),
            int(look),
            records.milliseconds(detection.expires_at),
            *commands,
        ]
        pipeline.eval(scripts.ACCEPT, len(keys), *keys, *arguments)

    def reception(
        self, reply: Sequence[bytes | None], application: Application
    ) -> tuple[Reception, Detection]:
        """What became of an application, and the detection that this is about."""
        kind = Reception((reply[0] or b"").decode())
        if kind is Reception.REPEATED:
            first = records.read(reply[1:])
            if first is not None:
                return kind, first
        if kind is Reception.KNOWN and reply[1] is not None:
            return kind, records.parse(reply[1], Status.SUCCEEDED)
        return kind, application.detection

    def get(self, detection_id: str) -> Detection | None:
        """The record as of now; one past its time reads `expired`, without its results."""
        return records.read(
            cast(list[bytes | None], self.redis.hmget(records.key(detection_id), records.FIELDS))
        )

    def get_owned(self, detection_ids: Sequence[str], owner: str) -> list[Detection | None]:
        """The records as of now, in one round trip; None for what this owner does not have."""
        return self.get_each([(detection_id, owner) for detection_id in detection_ids])

    def get_each(self, wanted: Sequence[tuple[str, str]]) -> list[Detection | None]:
        """As `get_owned`, each for an owner of its own: pairs of id and owner."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for detection_id, _ in wanted:
                pipeline.hmget(records.key(detection_id), [*records.FIELDS, "owner"])
            found = cast(list[list[bytes | None]], pipeline.execute())
        return [
            records.read(values) if whose == owner.encode() else None
            for (_, owner), (*values, whose) in zip(wanted, found, strict=True)
        ]

    def newest(self, owner: str, limit: int, cursor: str | None) -> Page:
        """Detections of an owner, newest first, in two round trips.

        Args:
            owner: whose.
            limit: most detections.
            cursor: of the page before this one. What comes or goes meanwhile moves nothing.
        """
        start = "+" if cursor is None else f"({cursor}"
        found = self.redis.zrange(
            records.index_key(owner), start, "-", desc=True, bylex=True, offset=0, num=limit + 1
        )
        members = [member.decode() for member in cast(list[bytes], found)]
        page = members[:limit]
        detections = self.get_owned([records.id_of(member) for member in page], owner)
        return Page(
            [record for record in detections if record is not None],
            page[-1] if len(members) > limit else None,
        )

    def delete(self, detection_id: str, owner: str, jobs: Pipeline) -> bool:
        """Remove everything about a detection; whoever waits for it is told.

        Args:
            detection_id: which.
            owner: whose it must be.
            jobs: commands, not executed yet, that take it off the queue; they run if it waits.

        Returns:
            False if this owner has no such detection.
        """
        keys = [
            records.index_key(owner),
            records.key(detection_id),
            records.image_key(detection_id),
            *(records.mask_key(detection_id, head) for head in Head),
        ]
        arguments = [owner, detection_id, FINISHED_CHANNEL, *scripts.words(jobs)]
        return bool(self.redis.eval(scripts.DELETE, len(keys), *keys, *arguments))

    def get_image(self, detection_id: str) -> bytes | None:
        """The upload as it came, or None once it is gone."""
        return cast(bytes | None, self.redis.get(records.image_key(detection_id)))

    def get_mask(self, detection_id: str, head: Head) -> bytes | None:
        """The probability map as an 8-bit grey PNG of the picture's size, or None."""
        return cast(bytes | None, self.redis.get(records.mask_key(detection_id, head)))

    @staticmethod
    def set_webhook(pipeline: Pipeline, detection_id: str, webhook: records.Webhook) -> None:
        """Add to `pipeline` that the end of a detection is to be told."""
        pipeline.hset(records.key(detection_id), "webhook", webhook.model_dump_json())

    def get_webhook(self, detection_id: str) -> records.Webhook | None:
        """Where the end of a detection is to be told, if anywhere."""
        found = cast(bytes | None, self.redis.hget(records.key(detection_id), "webhook"))
        return None if found is None else records.Webhook.model_validate_json(found)

    def live_workers(self) -> list[WorkerInfo]:
        """The workers that are warm and were heard of lately."""
        names = cast(
            list[bytes], self.redis.zrangebyscore(records.WORKERS_KEY, time.time(), "+inf")
        )
        if not names:
            return []
        infos = cast(
            list[bytes | None], self.redis.mget([records.worker_key(n.decode()) for n in names])
        )
        return [WorkerInfo.model_validate_json(info) for info in infos if info is not None]

    # -- the worker's side ---------------------------------------------------------------------

    def announce(self, worker: WorkerInfo, ttl: int) -> None:
        """Say that `worker` is alive and warm for the next `ttl` seconds."""
        now = time.time()
        with self.redis.pipeline() as pipeline:
            pipeline.set(records.worker_key(worker.name), worker.model_dump_json(), ex=ttl)
            pipeline.set(records.MODEL_KEY, records.model_tag(worker.model), ex=ttl)
            pipeline.zadd(records.WORKERS_KEY, {worker.name: now + ttl})
            pipeline.zremrangebyscore(records.WORKERS_KEY, "-inf", now)
            pipeline.execute()

    def withdraw(self, name: str) -> None:
        """Say that the worker takes no more work."""
        with self.redis.pipeline() as pipeline:
            pipeline.delete(records.worker_key(name))
            pipeline.zrem(records.WORKERS_KEY, name)
            pipeline.execute()

    def start(self, detection_ids: Sequence[str]) -> dict[str, Detection]:
        """Mark detections as processing, in one round trip.

        Returns:
            Their records by id. An id is missing if there is nothing to do: its detection is
            finished, removed, or past its deadline.
        """
        now = time.time()
        with self.redis.pipeline(transaction=False) as pipeline:
            for detection_id in detection_ids:
                pipeline.eval(scripts.START, 1, records.key(detection_id), now)
            found = pipeline.execute()
        return {
            detection_id: records.parse(record, Status.PROCESSING)
            for detection_id, record in zip(detection_ids, found, strict=True)
            if record is not None
        }

    def get_images(self, detection_ids: Sequence[str]) -> list[bytes | None]:
        """The uploads as they came, in one round trip; None for what is gone."""
        keys = [records.image_key(detection_id) for detection_id in detection_ids]
        return cast(list[bytes | None], self.redis.mget(keys))

    def finish(
        self, pipeline: Pipeline, detection: Detection, masks: Mapping[Head, bytes] | None = None
    ) -> None:
        """Add the final record and its masks (PNG) to `pipeline`; tell whoever waits for it.

        The command answers 1, or 0 if the detection was final or gone already: then nothing is
        changed.
        """
        masks = masks or {}
        keys = [
            records.key(detection.id),
            *(records.mask_key(detection.id, head) for head in masks),
        ]
        arguments: list[Any] = [
            detection.status.value,
            detection.model_dump_json(exclude={"status"}),
            records.model_tag(detection.model),
            detection.id,
            FINISHED_CHANNEL,
            records.milliseconds(detection.expires_at),
            utcformat(datetime.now(UTC)),
            *masks.values(),
        ]
        pipeline.eval(scripts.FINISH, len(keys), *keys, *arguments)

    def fail(self, detection_id: str, error: DetectionError) -> bool:
        """End a detection as failed.

        Returns:
            False if it was final or gone already.
        """
        detection = self.get(detection_id)
        if detection is None or detection.status.finished:
            return False
        failed = detection.model_copy(
            update={"status": Status.FAILED, "error": error, "finished_at": datetime.now(UTC)}
        )
        with self.redis.pipeline() as pipeline:
            self.finish(pipeline, failed)
            (changed,) = pipeline.execute()
        return bool(changed)


def count_workers(pipeline: Pipeline) -> None:
    """Add the question how many workers are alive and warm to `pipeline`."""
    pipeline.zcount(records.WORKERS_KEY, time.time(), "+inf")
