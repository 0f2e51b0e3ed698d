"""The RQ queue of webhook deliveries.

The delivery job is created in the same transaction as its detection and scheduled for the time at
which the detection would expire in the queue. The script that finishes a detection atomically
moves the job to the queue, so that a crash loses no delivery. If no worker takes the detection in
time, the schedule makes the job due; the job of a deleted detection does nothing.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from app.contract import records, tracing
from app.contract.records import RECORD_LIFETIMES, Webhook
from app.contract.settings import Settings
from app.contract.submission import Submission
from app.webhooks.targets import Targets

DELIVERY_FUNCTION = "app.webhooks.delivery.deliver"
TEST_FUNCTION = "app.webhooks.delivery.deliver_test"
"""The only function names that `gamma webhooks` accepts; they are compared, never imported."""
TEST_INTERVAL = 5  # s, between two tests of a caller

_FIELD = "webhook"  # of a record's hash
_DELIVERY_ID = re.compile(r"msg_([A-Za-z0-9]{1,64})")
_UNDER_WAY = (JobStatus.QUEUED, JobStatus.STARTED)
_REPLAY_LOCK = 2  # s; two simultaneous requests replay once
_RESULT_TTL = 600  # s; read by RQ's own tools only
_MAX_CRASHES = 5  # of workers during a delivery
_CRASH_DELAY = 10  # s
_ROUNDING = timedelta(seconds=1)  # RQ truncates to seconds
_MARGIN = 30  # s; a delivery also waits for Redis


class Deliveries:
    """Delivery jobs. Thread-safe.

    The argument of a delivery is the id of its detection; a test has the name of the caller and
    the URL. Arguments are JSON.
    """

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
        job = self._job(
            DELIVERY_FUNCTION, f"msg_{detection_id}", detection_id, meta=submission.meta
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

    def replay(self, webhook: Webhook) -> bool:
        """Send the message of a finished detection again, at once and with all its retries.

        Returns:
            False if it is being delivered already.
        """
        redis = self.queue.connection
        if not redis.set(f"gamma:webhook-replay:{webhook.job_id}", b"", nx=True, ex=_REPLAY_LOCK):
            return False
        try:
            job = Job.fetch(webhook.job_id, redis, JSONSerializer)
        except NoSuchJobError:
            job = self._job(DELIVERY_FUNCTION, webhook.job_id, webhook.job_id.removeprefix("msg_"))
        else:
            if job.get_status(refresh=False) in _UNDER_WAY:
                return False
            for registry in (self.queue.scheduled_job_registry, self.queue.failed_job_registry):
                registry.remove(job)
            job.meta.update(tries=0, turns=0)
            job.retries_left = _MAX_CRASHES
        self.queue.enqueue_job(job)
        return True

    def test(self, owner: str, url: str) -> str | None:
        """Queue a test event; it is sent once.

        Args:
            owner: name of the caller.
            url: normalised URL, from `check`.

        Returns:
            Id of the message; None if the owner's last test was less than `TEST_INTERVAL` ago.
        """
        redis = self.queue.connection
        if not redis.set(f"gamma:webhook-test:{owner}", b"", nx=True, ex=TEST_INTERVAL):
            return None
        job = self._job(TEST_FUNCTION, f"msg_{uuid.uuid4().hex}", owner, url, meta=tracing.meta())
        self.queue.enqueue_job(job)
        return job.id

    def _job(
        self, function: str, job_id: str, *arguments: str, meta: Mapping[str, str] | None = None
    ) -> Job:
        return self.queue.create_job(
            function,
            args=arguments,
            job_id=job_id,
            ttl=self._lifetime,
            result_ttl=_RESULT_TTL,
            failure_ttl=self._lifetime,
            retry=Retry(max=_MAX_CRASHES, interval=_CRASH_DELAY),
            description=job_id,
            meta=dict(meta or {}),
        )


def webhook_of(redis: Redis, detection_id: str) -> Webhook | None:
    """The webhook of a detection; None if there is none."""
    found = cast(bytes | None, redis.hget(records.key(detection_id), _FIELD))
    return None if found is None else Webhook.model_validate_json(found)


def queue_name(settings: Settings) -> str:
    """Name of the delivery queue."""
    return f"{settings.queue}-webhooks"


class PayloadError(ValueError):
    """A job is not a valid delivery."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is not a delivery")


def detection_of(job: Job) -> str | None:
    """Id of the detection that a job delivers; None: the job is a test.

    Raises:
        PayloadError: If the function is another one or the arguments do not match the job's id.
    """
    if job.func_name == TEST_FUNCTION:
        return None
    found = _DELIVERY_ID.fullmatch(job.id)
    arguments: Any = job.args
    if job.func_name != DELIVERY_FUNCTION or not found or list(arguments) != [found.group(1)]:
        raise PayloadError(job)
    return found.group(1)


def target_of_test(job: Job) -> tuple[str, str]:
    """Name of the caller and URL of a test.

    Raises:
        PayloadError: If the arguments are not two strings.
    """
    arguments: Any = job.args
    if len(arguments) != 2 or not all(isinstance(one, str) for one in arguments):
        raise PayloadError(job)
    return arguments[0], arguments[1]
