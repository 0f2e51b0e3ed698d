"""What a delivery job does: one try to tell a receiver how a detection ended."""

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
from app.webhooks.lines import Breaker, Line, Threads
from app.webhooks.metrics import Outcome
from app.webhooks.queue import detection_of, webhook_of
from app.webhooks.sending import NoAnswerError, Sender
from app.webhooks.targets import TargetRefusedError, Targets

EVENT = "detection.finished"
_GONE = 410  # the receiver wants no more of it (RFC 9110)
_LOOK_AGAIN = 15  # s; a detection begun just before its deadline is still being computed
_FOR_EVER = 10**6  # times; the end comes from our own count
_TURNS_AFTER = (2, 5, 15, 60)  # s; where too many are at the same host already

log = structlog.get_logger()


class Event(BaseModel):
    """What is sent, as JSON."""

    event: str = EVENT
    id: str
    created_at: datetime
    detection: Detection


class WebhooksOffError(ValueError):
    """There is no secret to sign with."""

    def __init__(self) -> None:
        super().__init__(
            "neither GAMMA_WEBHOOK_SECRETS nor GAMMA_CALLERS_FILE is set: there is nothing to "
            "sign webhooks with"
        )


class DeliveryFailedError(Exception):
    """Given up; RQ then lists the job as failed, and can be told to run it again."""


class Deliverer:
    """Delivers. Safe to share between threads."""

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
        self._threads = Threads(threads)
        self._links = {ROOT_PATH: root_path}
        self._breaker = Breaker()

    @classmethod
    def of(cls, settings: Settings, redis: Redis, threads: int) -> Deliverer:
        """One by the settings.

        Raises:
            WebhooksOffError: there is no secret to sign with.
            CallersFileError: `GAMMA_CALLERS_FILE` cannot be used.
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
        """Try once. The number of tries so far is kept with the job.

        Returns:
            What RQ shows as the job's result, or when RQ is to run it again.

        Raises:
            PayloadError: the job is not a delivery.
            DeliveryFailedError: it is given up.
        """
        detection_id = detection_of(job)
        webhook = webhook_of(self._store.redis, detection_id)
        detection = self._store.get(detection_id)
        if webhook is None or detection is None:
            return "deleted"  # there is nothing to tell any more
        if not detection.status.finished:
            return Retry(max=_FOR_EVER, interval=_LOOK_AGAIN)
        line = Line(webhook.owner, httpx2.URL(webhook.url).netloc.decode())
        with self._threads.turn(line, alone=self._directory.now.alone) as ours:
            if ours:
                return self._deliver(job, webhook, detection, line)
        turns = _count(job, "turns")
        job.meta["turns"] = turns + 1
        return Retry(max=_FOR_EVER, interval=_TURNS_AFTER[min(turns, len(_TURNS_AFTER) - 1)])

    def _deliver(self, job: Job, webhook: Webhook, detection: Detection, line: Line) -> str | Retry:
        """Try once; as `run`."""
        tries = _count(job, "tries")
        job.meta["tries"] = tries + 1
        pause = self._pauses[tries] if tries < len(self._pauses) else None
        started = time.perf_counter()
        parent = tracing.trace_of(job.meta)
        trace = tracing.Trace.begin() if parent is None else parent.child()
        outcome, reason = self._try(job.id, webhook, detection, trace, line, last=pause is None)
        seconds = time.perf_counter() - started
        metrics.DELIVERIES.labels(outcome).inc()
        metrics.DELIVERY_DURATION.observe(seconds)
        log.info(
            "webhook",
            detection_id=detection.id,
            **{**tracing.origin_of(job.meta), "trace_id": trace.trace_id, "span_id": trace.span_id},
            delivery_id=job.id,
            host=httpx2.URL(webhook.url).host,  # paths and queries often hold a secret
            outcome=outcome,
            reason=reason,
            tries=tries + 1,
            seconds=round(seconds, 4),
        )
        if outcome is Outcome.DELIVERED:
            return outcome.value
        if outcome is Outcome.RETRIED:
            return Retry(max=_FOR_EVER, interval=cast(int, pause))
        job.retries_left = 0
        raise DeliveryFailedError(reason)

    def _try(
        self,
        message_id: str,
        webhook: Webhook,
        detection: Detection,
        trace: tracing.Trace,
        line: Line,
        *,
        last: bool,
    ) -> tuple[Outcome, str]:
        """Send once; how it ended, and why in a few words."""
        event = Event(
            id=message_id,
            created_at=detection.finished_at or datetime.now(UTC),
            detection=detection,
        )
        body = event.model_dump_json(context=self._links).encode()
        secrets = self._directory.now.terms_of(webhook.owner).webhook_secrets
        if secrets is None:
            return Outcome.REFUSED, "the caller has no secret to sign with any more"
        signature = secrets.headers(message_id, int(time.time()), body)
        headers = {**signature, tracing.HEADER: trace.header()}
        failed = Outcome.FAILED if last else Outcome.RETRIED
        if not last and self._breaker.is_dead(line):
            return failed, "not sent: the host has not answered lately"
        try:
            status = self._sender.post(webhook.url, body, headers)
        except TargetRefusedError as error:
            return Outcome.REFUSED, str(error)
        except NoAnswerError as error:
            self._breaker.note(line, answered=False)
            return failed, str(error)
        self._breaker.note(line, answered=True)
        if 200 <= status < 300:
            return Outcome.DELIVERED, f"HTTP {status}"
        # Redirects are not followed: a moved receiver has to be named anew.
        return Outcome.FAILED if status == _GONE else failed, f"HTTP {status}"


def deliver(detection_id: str) -> str | Retry:
    """What a stock RQ worker runs; `gamma webhooks` does the same without importing it.

    Raises:
        WebhooksOffError: there is no secret to sign with.
        PayloadError: as `Deliverer.run`.
        DeliveryFailedError: as `Deliverer.run`.
    """
    job = get_current_job()
    assert job is not None  # noqa: S101 - nothing but a job calls it
    return Deliverer.of(Settings(), job.connection, threads=1).run(job)


def _count(job: Job, what: str) -> int:
    count: Any = job.meta.get(what, 0)
    return count if isinstance(count, int) and count >= 0 else 0
