"""Delivery jobs: one attempt to send the final record of a detection to a receiver."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import httpx2
import structlog
from pydantic import BaseModel
from redis import Redis
from rq import Retry, get_current_job
from rq.job import Job

from app.contract import tracing
from app.contract.directory import Directory
from app.contract.records import Webhook
from app.contract.schemas import ROOT_PATH, Detection
from app.contract.settings import Settings
from app.contract.store import Store
from app.webhooks import metrics
from app.webhooks.destinations import CircuitBreaker, Destination, ThreadShares
from app.webhooks.metrics import Outcome
from app.webhooks.queue import detection_of, webhook_of
from app.webhooks.sending import NoAnswerError, Sender
from app.webhooks.targets import TargetRefusedError, Targets

EVENT = "detection.finished"
_HTTP_GONE = 410  # the receiver wants no more deliveries
_UNFINISHED_DELAY = 15  # s; a detection started just before its deadline is still running
_UNLIMITED = 10**6  # retries of RQ; `Deliverer` counts attempts itself
_BUSY_DELAYS = (2, 5, 15, 60)  # s, while the destination uses its share of the threads

log = structlog.get_logger()


class Event(BaseModel):
    """Body of a webhook, sent as JSON."""

    event: str = EVENT
    id: str
    created_at: datetime
    detection: Detection


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
        detection_id = detection_of(job)
        webhook = webhook_of(self._store.redis, detection_id)
        detection = self._store.get(detection_id)
        if webhook is None or detection is None:
            return "deleted"
        if not detection.status.finished:
            return Retry(max=_UNLIMITED, interval=_UNFINISHED_DELAY)
        destination = Destination(webhook.owner, httpx2.URL(webhook.url).netloc.decode())
        with self._shares.acquire(destination, alone=self._directory.now.alone) as acquired:
            if acquired:
                return self._deliver(job, webhook, detection, destination)
        turns = _count(job, "turns")
        job.meta["turns"] = turns + 1
        return Retry(max=_UNLIMITED, interval=_BUSY_DELAYS[min(turns, len(_BUSY_DELAYS) - 1)])

    def _deliver(
        self, job: Job, webhook: Webhook, detection: Detection, destination: Destination
    ) -> str | Retry:
        """Make one attempt and record its outcome; returns and raises as `run`."""
        tries = _count(job, "tries")
        job.meta["tries"] = tries + 1
        pause = self._pauses[tries] if tries < len(self._pauses) else None
        started = time.perf_counter()
        parent = tracing.trace_of(job.meta)
        trace = tracing.Trace.begin() if parent is None else parent.child()
        outcome, reason = self._try(
            job.id, webhook, detection, trace, destination, last=pause is None
        )
        seconds = time.perf_counter() - started
        metrics.DELIVERIES.labels(outcome).inc()
        metrics.DELIVERY_DURATION.observe(seconds)
        log.info(
            "webhook",
            detection_id=detection.id,
            **{**tracing.origin_of(job.meta), "trace_id": trace.trace_id, "span_id": trace.span_id},
            delivery_id=job.id,
            host=httpx2.URL(webhook.url).host,  # path and query may contain a secret
            outcome=outcome,
            reason=reason,
            tries=tries + 1,
            seconds=round(seconds, 4),
        )
        if outcome is Outcome.DELIVERED:
            return outcome.value
        if outcome is Outcome.RETRIED:
            return Retry(max=_UNLIMITED, interval=cast(int, pause))
        job.retries_left = 0
        raise DeliveryFailedError(reason)

    def _try(
        self,
        message_id: str,
        webhook: Webhook,
        detection: Detection,
        trace: tracing.Trace,
        destination: Destination,
        *,
        last: bool,
    ) -> tuple[Outcome, str]:
        """Send the event once; returns the outcome and a short reason."""
        event = Event(
            id=message_id,
            created_at=detection.finished_at or datetime.now(UTC),
            detection=detection,
        )
        body = event.model_dump_json(context=self._links).encode()
        secrets = self._directory.now.settings_of(webhook.owner).webhook_secrets
        if secrets is None:
            return Outcome.REFUSED, "the caller has no signing secret any more"
        signature = secrets.headers(message_id, int(time.time()), body)
        headers = {**signature, tracing.HEADER: trace.header()}
        failed = Outcome.FAILED if last else Outcome.RETRIED
        if not last and self._breaker.is_open(destination):
            return failed, "not sent: the host did not answer recent deliveries"
        try:
            status = self._sender.post(webhook.url, body, headers)
        except TargetRefusedError as error:
            return Outcome.REFUSED, str(error)
        except NoAnswerError as error:
            self._breaker.record(destination, answered=False)
            return failed, str(error)
        self._breaker.record(destination, answered=True)
        if 200 <= status < 300:
            return Outcome.DELIVERED, f"HTTP {status}"
        # Redirects count as failures.
        return Outcome.FAILED if status == _HTTP_GONE else failed, f"HTTP {status}"


def deliver(detection_id: str) -> str | Retry:
    """Job function for a stock RQ worker; `gamma webhooks` does not import it.

    Raises:
        WebhooksOffError: If there is no signing secret.
        PayloadError: If the job is not a delivery.
        DeliveryFailedError: If the attempt failed and no attempts are left.
    """
    job = get_current_job()
    assert job is not None  # noqa: S101 - only RQ calls this function
    return Deliverer.of(Settings(), job.connection, threads=1).run(job)


def _count(job: Job, what: str) -> int:
    count: Any = job.meta.get(what, 0)
    return count if isinstance(count, int) and count >= 0 else 0
