"""Delivery jobs: one attempt to send the final record of a detection to a receiver."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import httpx2
import structlog
from opentelemetry.trace import Span, SpanKind
from redis import Redis
from redis.exceptions import RedisError
from rq import Retry, get_current_job
from rq.job import Job

from app.contract import tracing
from app.contract.directory import Directory
from app.contract.schemas import ROOT_PATH
from app.contract.settings import Settings
from app.contract.store import Store
from app.webhooks import metrics
from app.webhooks.attempts import Attempt, AttemptLog, Outcome
from app.webhooks.destinations import CircuitBreaker, Destination, ThreadShares
from app.webhooks.events import FinishedEvent, TestEvent
from app.webhooks.queue import detection_of, target_of_test, webhook_of
from app.webhooks.sending import NoAnswerError, Sender
from app.webhooks.targets import TargetRefusedError, Targets

_HTTP_GONE = 410  # the receiver wants no more deliveries
_UNFINISHED_DELAY = 15  # s; a detection started just before its deadline is still running
_UNLIMITED = 10**6  # retries of RQ; `Deliverer` counts attempts itself
_BUSY_DELAYS = (2, 5, 15, 60)  # s, while the destination uses its share of the threads

log = structlog.get_logger()


@dataclass(frozen=True)
class _Message:
    """What a job sends.

    Attributes:
        owner: name of the caller.
        url: where it is sent.
        event: its body.
        pauses: seconds before each retry.
    """

    owner: str
    url: str
    event: FinishedEvent | TestEvent
    pauses: Sequence[int]

    @property
    def detection_id(self) -> str | None:
        """Id of the detection; None: a test event."""
        return self.event.detection.id if isinstance(self.event, FinishedEvent) else None

    @property
    def destination(self) -> Destination:
        """Receiver, as far as limits are concerned."""
        return Destination(self.owner, httpx2.URL(self.url).netloc.decode())


class _Result(NamedTuple):
    outcome: Outcome
    reason: str
    status: int | None = None


class WebhooksOffError(ValueError):
    """No signing secret is configured."""

    def __init__(self) -> None:
        super().__init__(
            "webhooks need a signing secret: set GAMMA_WEBHOOK_SECRETS or GAMMA_CALLERS_FILE"
        )


class DeliveryFailedError(Exception):
    """No attempts are left; RQ lists the job as failed, and can requeue it."""


class Deliverer:
    """Runs delivery jobs. Thread-safe."""

    def __init__(
        self,
        store: Store,
        sender: Sender,
        directory: Directory,
        pauses: Sequence[int],
        threads: int,
        root_path: str,
    ) -> None:
        self._store = store
        self._attempts = AttemptLog(store.redis)
        self._sender = sender
        self._directory = directory
        self._pauses = pauses
        self._shares = ThreadShares(threads)
        self._links = {ROOT_PATH: root_path}
        self._breaker = CircuitBreaker()

    @classmethod
    def of(cls, settings: Settings, redis: Redis, threads: int) -> Deliverer:
        """Create one from the settings.

        Raises:
            WebhooksOffError: If there is no signing secret.
            CallersFileError: If `GAMMA_CALLERS_FILE` is invalid.
        """
        if not settings.may_sign_webhooks:
            raise WebhooksOffError
        return cls(
            Store(redis),
            Sender(Targets(settings.webhook_allow), settings.webhook_timeout),
            Directory(settings),
            settings.webhook_pauses,
            threads,
            settings.root_path or "",
        )

    def run(self, job: Job) -> str | Retry:
        """Make one attempt; attempts are counted in the job's `meta`.

        Returns:
            Result of the job, or when RQ has to run it again.

        Raises:
            PayloadError: If the job is not a delivery.
            DeliveryFailedError: If the attempt failed and no attempts are left.
        """
        message = self._message(job)
        if not isinstance(message, _Message):
            return message
        destination = message.destination
        with self._shares.acquire(destination, alone=self._directory.now.alone) as acquired:
            if acquired:
                return self._deliver(job, message, destination)
        turns = _count(job, "turns")
        job.meta["turns"] = turns + 1
        return Retry(max=_UNLIMITED, interval=_BUSY_DELAYS[min(turns, len(_BUSY_DELAYS) - 1)])

    def _message(self, job: Job) -> _Message | str | Retry:
        """What a job sends, or why it sends nothing now; raises as `run`."""
        detection_id = detection_of(job)
        if detection_id is None:
            owner, url = target_of_test(job)
            return _Message(owner, url, TestEvent(id=job.id, created_at=datetime.now(UTC)), ())
        webhook = webhook_of(self._store.redis, detection_id)
        detection = self._store.get(detection_id)
        if webhook is None or detection is None:
            return "deleted"
        if not detection.status.finished:
            return Retry(max=_UNLIMITED, interval=_UNFINISHED_DELAY)
        event = FinishedEvent(
            id=job.id,
            created_at=detection.finished_at or datetime.now(UTC),
            detection=detection,
        )
        return _Message(webhook.owner, webhook.url, event, self._pauses)

    def _deliver(self, job: Job, message: _Message, destination: Destination) -> str | Retry:
        """Make one attempt and record its outcome; returns and raises as `run`."""
        tries = _count(job, "tries")
        job.meta["tries"] = tries + 1
        pause = message.pauses[tries] if tries < len(message.pauses) else None
        started, now = time.perf_counter(), datetime.now(UTC)
        host = httpx2.URL(message.url).host  # path and query may contain a secret
        span = tracing.tracer().start_span(
            "webhook",
            tracing.context_of(job.meta),
            SpanKind.CLIENT,
            {"server.address": host, "gamma.delivery_id": job.id, "gamma.attempt": tries + 1},
        )
        with tracing.active(span):
            result = self._try(message, destination, last=pause is None)
        attempt = Attempt(
            id=job.id,
            detection_id=message.detection_id,
            host=host,
            tried_at=now,
            number=tries + 1,
            outcome=result.outcome,
            status=result.status,
            reason=result.reason,
            seconds=round(time.perf_counter() - started, 4),
        )
        _end(span, attempt)
        self._record(message.owner, attempt)
        metrics.DELIVERIES.labels(attempt.outcome).inc()
        metrics.DELIVERY_DURATION.observe(attempt.seconds)
        log.info(
            "webhook",
            detection_id=attempt.detection_id,
            **tracing.origin_of(job.meta, span),
            delivery_id=job.id,
            receiver=attempt.host,
            outcome=attempt.outcome,
            reason=attempt.reason,
            tries=attempt.number,
            seconds=attempt.seconds,
        )
        if attempt.outcome is Outcome.DELIVERED or message.detection_id is None:
            return attempt.outcome.value
        if attempt.outcome is Outcome.RETRIED:
            return Retry(max=_UNLIMITED, interval=cast(int, pause))
        job.retries_left = 0
        raise DeliveryFailedError(attempt.reason)

    def _record(self, owner: str, attempt: Attempt) -> None:
        try:
            self._attempts.add(owner, attempt)
        except RedisError as error:  # the message was sent: do not send it again
            log.error("webhook_attempt_unrecorded", delivery_id=attempt.id, error=str(error))

    def _try(self, message: _Message, destination: Destination, *, last: bool) -> _Result:
        """Send the message once."""
        body = message.event.model_dump_json(context=self._links).encode()
        secrets = self._directory.now.settings_of(message.owner).webhook_secrets
        if secrets is None:
            return _Result(Outcome.REFUSED, "the caller has no signing secret any more")
        signature = secrets.headers(message.event.id, int(time.time()), body)
        headers = signature | tracing.headers(tracing.current())
        failed = Outcome.FAILED if last else Outcome.RETRIED
        if not last and self._breaker.is_open(destination):
            return _Result(failed, "not sent: the host did not answer recent deliveries")
        try:
            status = self._sender.post(message.url, body, headers)
        except TargetRefusedError as error:
            return _Result(Outcome.REFUSED, str(error))
        except NoAnswerError as error:
            self._breaker.record(destination, answered=False)
            return _Result(failed, str(error))
        self._breaker.record(destination, answered=True)
        if 200 <= status < 300:
            outcome = Outcome.DELIVERED
        else:  # redirects count as failures
            outcome = Outcome.FAILED if status == _HTTP_GONE else failed
        return _Result(outcome, f"HTTP {status}", status)


def deliver(detection_id: str) -> str | Retry:
    """Job function of a delivery for a stock RQ worker; `gamma webhooks` does not import it.

    Raises:
        WebhooksOffError: If there is no signing secret.
        PayloadError: If the job is not a delivery.
        DeliveryFailedError: If the attempt failed and no attempts are left.
    """
    return _run_current_job()


def deliver_test(owner: str, url: str) -> str | Retry:
    """As `deliver`, for a test event."""
    return _run_current_job()


def _run_current_job() -> str | Retry:
    job = get_current_job()
    assert job is not None  # noqa: S101 - only RQ calls its callers
    return Deliverer.of(Settings(), job.connection, threads=1).run(job)


def _end(span: Span, attempt: Attempt) -> None:
    span.set_attribute("gamma.outcome", attempt.outcome)
    if attempt.detection_id is not None:
        span.set_attribute("gamma.detection_id", attempt.detection_id)
    if attempt.status is not None:
        span.set_attribute("http.response.status_code", attempt.status)
    if attempt.outcome is not Outcome.DELIVERED:
        tracing.fail(span, "no_answer" if attempt.status is None else str(attempt.status))
    span.end()


def _count(job: Job, what: str) -> int:
    count: Any = job.meta.get(what, 0)
    return count if isinstance(count, int) and count >= 0 else 0
