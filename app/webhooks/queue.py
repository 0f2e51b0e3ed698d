"""The RQ queue of deliveries, as the API and the delivery workers see it.

The job of a delivery is made together with its detection and put on RQ's schedule for the moment
at which the detection would expire in the queue. The script that ends a detection moves that job
to the queue in the same step, so that no end goes untold, whoever crashes. A detection that no
worker took in time is told when the schedule says so; a deleted one has nothing to tell.
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
"""The only function name that `gamma webhooks` accepts; it compares it, and never imports it."""

_FIELD = "webhook"  # of a record's hash
_DELIVERY_ID = re.compile(r"msg_([A-Za-z0-9]{1,64})")
_RESULT_TTL = 600  # s; only RQ's own tools read it
_CRASHES = 5  # workers that may die during a delivery before it is given up
_AFTER_CRASH = 10  # s
_ROUNDING = timedelta(seconds=1)  # RQ leaves out what is less than a second
_MARGIN = 30  # s; a delivery also waits for Redis, before and after


class Deliveries:
    """Jobs whose one argument is a detection id, in JSON. Safe to share between threads."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._targets = Targets(settings.webhook_allow)
        # Longer than the record, without which there is nothing to tell.
        self._lifetime = settings.queue_ttl + RECORD_LIFETIMES * settings.retention
        self.queue = Queue(
            queue_name(settings),
            connection=redis,
            serializer=JSONSerializer,
            default_timeout=int(settings.webhook_timeout) + _MARGIN,
        )

    def check(self, url: str) -> str:
        """The URL in its normal form, to be handed to `plan`.

        Raises:
            TargetRefusedError: nothing is ever sent there.
        """
        return self._targets.check(url)

    def plan(self, pipeline: Pipeline, submission: Submission, url: str) -> None:
        """Add to `pipeline` what makes the end of a detection known to `url`.

        Args:
            pipeline: executed together with what makes the record, which is not final yet.
            submission: which.
            url: from `check`.
        """
        detection_id = submission.detection.id
        job = self.queue.create_job(
            DELIVERY_FUNCTION,
            args=(detection_id,),
            job_id=f"msg_{detection_id}",
            ttl=self._lifetime,
            result_ttl=_RESULT_TTL,
            failure_ttl=self._lifetime,
            retry=Retry(max=_CRASHES, interval=_AFTER_CRASH),
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
    """Where the end of a detection is to be told, if anywhere."""
    found = cast(bytes | None, redis.hget(records.key(detection_id), _FIELD))
    return None if found is None else Webhook.model_validate_json(found)


def queue_name(settings: Settings) -> str:
    """Name of the RQ queue of deliveries."""
    return f"{settings.queue}-webhooks"


class PayloadError(ValueError):
    """A job that is not a delivery of ours."""


def detection_of(job: Job) -> str:
    """The detection whose end a job tells.

    Raises:
        PayloadError: another function, or arguments that do not go with the job's id.
    """
    found = _DELIVERY_ID.fullmatch(job.id)
    arguments: Any = job.args
    if job.func_name != DELIVERY_FUNCTION or not found or list(arguments) != [found.group(1)]:
        raise PayloadError(f"job {job.id} is not a delivery")
    return found.group(1)
