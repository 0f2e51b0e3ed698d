"""The RQ queue of webhook deliveries.

The delivery job is created in the same transaction as its detection and scheduled for the time at
which the detection would expire in the queue. The script that finishes a detection atomically
moves the job to the queue, so that a crash loses no delivery. If no worker takes the detection in
time, the schedule makes the job due; the job of a deleted detection does nothing.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from app.contract import records
from app.contract.records import RECORD_LIFETIMES, Webhook
from app.contract.settings import Settings
from app.contract.submission import Submission
from app.webhooks.targets import Targets

DELIVERY_FUNCTION = "app.webhooks.delivery.deliver"
"""The only function name that `gamma webhooks` accepts; it is compared, never imported."""

_FIELD = "webhook"  # of a record's hash
_DELIVERY_ID = re.compile(r"msg_([A-Za-z0-9]{1,64})")
_RESULT_TTL = 600  # s; read by RQ's own tools only
_MAX_CRASHES = 5  # of workers during a delivery
_CRASH_DELAY = 10  # s
_ROUNDING = timedelta(seconds=1)  # RQ truncates to seconds
_MARGIN = 30  # s; a delivery also waits for Redis


class Deliveries:
    """Delivery jobs, whose only argument is a detection id, in JSON. Thread-safe."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._targets = Targets(settings.webhook_allow)
        # Not shorter than the record, without which there is nothing to deliver.
        self._lifetime = settings.queue_ttl + RECORD_LIFETIMES * settings.retention
        self.queue = Queue(
            queue_name(settings),
            connection=redis,
            serializer=JSONSerializer,
            default_timeout=int(settings.webhook_timeout) + _MARGIN,
        )

    def check(self, url: str) -> str:
        """Check and normalise a URL for `plan`.

        Raises:
            TargetRefusedError: If the URL is not allowed.
        """
        return self._targets.check(url)

    def plan(self, pipeline: Pipeline, submission: Submission, url: str) -> None:
        """Add the commands that create the delivery of a detection to `pipeline`.

        Args:
            pipeline: executed in the transaction that creates the record.
            submission: submission of the detection.
            url: normalised URL, from `check`.
        """
        detection_id = submission.detection.id
        job = self.queue.create_job(
            DELIVERY_FUNCTION,
            args=(detection_id,),
            job_id=f"msg_{detection_id}",
            ttl=self._lifetime,
            result_ttl=_RESULT_TTL,
            failure_ttl=self._lifetime,
            retry=Retry(max=_MAX_CRASHES, interval=_CRASH_DELAY),
            description=detection_id,
            meta=dict(submission.meta),
        )
        self.queue.schedule_job(job, submission.deadline + _ROUNDING, pipeline=pipeline)
        webhook = Webhook(
            url=url,
            owner=submission.owner,
            job_id=job.id,
            job_key=job.key,
            queue_key=self.queue.key,
            schedule_key=self.queue.scheduled_job_registry.key,
        )
        pipeline.hset(records.key(detection_id), _FIELD, webhook.model_dump_json())


def webhook_of(redis: Redis, detection_id: str) -> Webhook | None:
    """The webhook of a detection; None if there is none."""
    found = cast(bytes | None, redis.hget(records.key(detection_id), _FIELD))
    return None if found is None else Webhook.model_validate_json(found)


def queue_name(settings: Settings) -> str:
    """Name of the delivery queue."""
    return f"{settings.queue}-webhooks"


class PayloadError(ValueError):
    """A job is not a valid delivery."""


def detection_of(job: Job) -> str:
    """Id of the detection that a job delivers.

    Raises:
        PayloadError: If the function is another one or the arguments do not match the job's id.
    """
    found = _DELIVERY_ID.fullmatch(job.id)
    arguments: Any = job.args
    if job.func_name != DELIVERY_FUNCTION or not found or list(arguments) != [found.group(1)]:
        raise PayloadError(f"job {job.id} is not a delivery")
    return found.group(1)
