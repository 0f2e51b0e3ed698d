"""Everything GAMMA keeps in Redis: key names, records, pictures, masks and live workers.

A detection's record is a hash that outlives its picture and masks, so that an expired detection
can say so. Status changes are guarded inside Redis: a finished or removed detection is never
brought back by a worker that comes late.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from app.schemas import Detection, DetectionError, ErrorCode, Head, Status, WorkerInfo

FINISHED_CHANNEL = "gamma:finished"
"""Pub/sub channel; each message is the id of a detection that became final."""

_WORKERS_KEY = "gamma:workers"
_RECORD_LIFETIMES = 2  # the record stays one retention longer than the picture, to say `expired`


def _record_key(detection_id: str) -> str:
    return f"gamma:detection:{detection_id}"


def _image_key(detection_id: str) -> str:
    return f"gamma:image:{detection_id}"


def _mask_key(detection_id: str, head: Head) -> str:
    return f"gamma:mask:{detection_id}:{head}"


def _worker_key(name: str) -> str:
    return f"gamma:worker:{name}"


# KEYS: record; ARGV: now (s). Returns the record, or nothing if there is no work to do.
_START = """
local found = redis.call('HMGET', KEYS[1], 'status', 'record', 'deadline')
if found[1] ~= 'queued' and found[1] ~= 'processing' then return false end
if found[1] == 'queued' and tonumber(found[3]) <= tonumber(ARGV[1]) then return false end
redis.call('HSET', KEYS[1], 'status', 'processing')
return found[2]
"""

# KEYS: record, masks…; ARGV: status, record, id, channel, expiry (ms since epoch), masks…
_FINISH = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'processing' then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'record', ARGV[2])
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 4], 'PXAT', ARGV[5]) end
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1
"""


def connect(url: str, *, retries: int = 4) -> Redis:
    """Client that tries a broken connection again before it raises.

    Args:
        url: `redis://`, `rediss://` or `unix://` URL.
        retries: after growing pauses of at most half a second; 4 take about a second in all.
    """
    return Redis.from_url(
        url,
        socket_connect_timeout=5,
        socket_timeout=10,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=retries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )


class Store:
    """Detections in Redis. Safe to share between threads."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    # -- the API's side ------------------------------------------------------------------------

    def create(
        self, pipeline: Pipeline, detection: Detection, picture: bytes, deadline: datetime
    ) -> None:
        """Add a queued detection and its picture to `pipeline`.

        Args:
            pipeline: executed by the caller, together with the enqueueing.
            detection: the record.
            picture: the upload as it came.
            deadline: from then on a detection that still waits in the queue is expired.
        """
        expires_at = detection.expires_at.timestamp()
        lifetime = expires_at - detection.created_at.timestamp()
        key = _record_key(detection.id)
        pipeline.hset(
            key,
            mapping={
                "status": detection.status.value,
                "record": detection.model_dump_json(exclude={"status"}),
                "deadline": deadline.timestamp(),
            },
        )
        tombstone = detection.created_at.timestamp() + _RECORD_LIFETIMES * lifetime
        pipeline.pexpireat(key, int(tombstone * 1000))
        pipeline.set(_image_key(detection.id), picture, pxat=int(expires_at * 1000))

    def get(self, detection_id: str) -> Detection | None:
        """The record as of now; one past its time reads `expired`, without its results."""
        found = self.redis.hmget(_record_key(detection_id), ["status", "record", "deadline"])
        status, record, deadline = cast(list[bytes | None], found)
        if status is None or record is None or deadline is None:
            return None
        detection = _parse(record, Status(status.decode()))
        now = time.time()
        if detection.expires_at.timestamp() <= now:
            return _expired(
                detection,
                ErrorCode.DETECTION_EXPIRED,
                "Picture and results were kept until expires_at.",
            )
        if detection.status is Status.QUEUED and float(deadline) <= now:
            return _expired(detection, ErrorCode.QUEUE_TIMEOUT, "No worker took it in time.")
        return detection

    def get_image(self, detection_id: str) -> bytes | None:
        """The upload as it came, or None once it is gone."""
        return cast(bytes | None, self.redis.get(_image_key(detection_id)))

    def get_mask(self, detection_id: str, head: Head) -> bytes | None:
        """The probability map as an 8-bit grey PNG of the picture's size, or None."""
        return cast(bytes | None, self.redis.get(_mask_key(detection_id, head)))

    def live_workers(self) -> list[WorkerInfo]:
        """The workers that are warm and were heard of lately."""
        names = cast(list[bytes], self.redis.zrangebyscore(_WORKERS_KEY, time.time(), "+inf"))
        if not names:
            return []
        infos = cast(list[bytes | None], self.redis.mget([_worker_key(n.decode()) for n in names]))
        return [WorkerInfo.model_validate_json(info) for info in infos if info is not None]

    # -- the worker's side ---------------------------------------------------------------------

    def announce(self, worker: WorkerInfo, ttl: int) -> None:
        """Say that `worker` is alive and warm for the next `ttl` seconds."""
        now = time.time()
        with self.redis.pipeline() as pipeline:
            pipeline.set(_worker_key(worker.name), worker.model_dump_json(), ex=ttl)
            pipeline.zadd(_WORKERS_KEY, {worker.name: now + ttl})
            pipeline.zremrangebyscore(_WORKERS_KEY, "-inf", now)
            pipeline.execute()

    def withdraw(self, name: str) -> None:
        """Say that the worker takes no more work."""
        with self.redis.pipeline() as pipeline:
            pipeline.delete(_worker_key(name))
            pipeline.zrem(_WORKERS_KEY, name)
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
                pipeline.eval(_START, 1, _record_key(detection_id), now)
            records = pipeline.execute()
        return {
            detection_id: _parse(record, Status.PROCESSING)
            for detection_id, record in zip(detection_ids, records, strict=True)
            if record is not None
        }

    def get_images(self, detection_ids: Sequence[str]) -> list[bytes | None]:
        """The uploads as they came, in one round trip; None for what is gone."""
        keys = [_image_key(detection_id) for detection_id in detection_ids]
        return cast(list[bytes | None], self.redis.mget(keys))

    def finish(
        self, pipeline: Pipeline, detection: Detection, masks: Mapping[Head, bytes] | None = None
    ) -> None:
        """Add the final record and its masks (PNG) to `pipeline`; tell whoever waits for it.

        The command answers 1, or 0 if the detection was final or gone already: then nothing is
        changed.
        """
        masks = masks or {}
        keys = [_record_key(detection.id), *(_mask_key(detection.id, head) for head in masks)]
        arguments: list[Any] = [
            detection.status.value,
            detection.model_dump_json(exclude={"status"}),
            detection.id,
            FINISHED_CHANNEL,
            int(detection.expires_at.timestamp() * 1000),
            *masks.values(),
        ]
        pipeline.eval(_FINISH, len(keys), *keys, *arguments)

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


def _parse(record: bytes, status: Status) -> Detection:
    return Detection.model_validate_json(record).model_copy(update={"status": status})


def _expired(detection: Detection, code: ErrorCode, detail: str) -> Detection:
    """The record without what is no longer kept."""
    kept = detection.model_dump(include={"id", "ref_id", "image", "view", "created_at"})
    return Detection(
        **kept,
        status=Status.EXPIRED,
        expires_at=detection.expires_at,
        finished_at=detection.finished_at,
        error=DetectionError(code=code, detail=detail),
    )
