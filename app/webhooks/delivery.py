"""What a delivery job does: one try to tell a receiver how a detection ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import httpx2
import structlog
from pydantic import BaseModel
from rq import Retry
from rq.job import Job

from app import tracing
from app.schemas import Detection
from app.store import Store
from app.webhooks import metrics
from app.webhooks.metrics import Outcome
from app.webhooks.queue import detection_of
from app.webhooks.sending import NoAnswerError, Sender
from app.webhooks.signing import SigningSecrets
from app.webhooks.targets import TargetRefusedError

EVENT = "detection.finished"
_GONE = 410  # the receiver wants no more of it (RFC 9110)
_LOOK_AGAIN = 15  # s; a detection begun just before its deadline is still being computed
_FOR_EVER = 10**6  # times; the end comes from our own count

log = structlog.get_logger()


class Event(BaseModel):
    """What is sent, as JSON."""

    event: str = EVENT
    id: str
    created_at: datetime
    detection: Detection


class DeliveryFailedError(Exception):
    """Given up; RQ then lists the job as failed, and can be told to run it again."""


class Deliverer:
    """Delivers. Safe to share between threads."""

    def __init__(
        self, store: Store, sender: Sender, secrets: SigningSecrets, pauses: Sequence[int]
    ) -> None:
        self._store = store
        self._sender = sender
        self._secrets = secrets
        self._pauses = pauses

    def run(self, job: Job) -> str | Retry:
        """Try once. The number of tries so far is kept with the job.

        Returns:
            What RQ shows as the job's result, or when RQ is to run it again.

        Raises:
            PayloadError: the job is not a delivery.
            DeliveryFailedError: it is given up.
        """
        detection_id = detection_of(job)
        webhook = self._store.get_webhook(detection_id)
        detection = self._store.get(detection_id)
        if webhook is None or detection is None:
            return "deleted"  # there is nothing to tell any more
        if not detection.status.finished:
            return Retry(max=_FOR_EVER, interval=_LOOK_AGAIN)
        tries = _tries(job)
        job.meta["tries"] = tries + 1
        pause = self._pauses[tries] if tries < len(self._pauses) else None
        started = time.perf_counter()
        parent = tracing.trace_of(job.meta)
        trace = tracing.Trace.begin() if parent is None else parent.child()
        outcome, reason = self._try(job.id, webhook.url, detection, trace, last=pause is None)
        seconds = time.perf_counter() - started
        metrics.DELIVERIES.labels(outcome).inc()
        metrics.DELIVERY_DURATION.observe(seconds)
        log.info(
            "webhook",
            detection_id=detection_id,
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
        url: str,
        detection: Detection,
        trace: tracing.Trace,
        *,
        last: bool,
    ) -> tuple[Outcome, str]:
        """Send once; how it ended, and why in a few words."""
        event = Event(
            id=message_id,
            created_at=detection.finished_at or datetime.now(UTC),
            detection=detection,
        )
        body = event.model_dump_json().encode()
        signature = self._secrets.headers(message_id, int(time.time()), body)
        headers = {**signature, tracing.HEADER: trace.header()}
        failed = Outcome.FAILED if last else Outcome.RETRIED
        try:
            status = self._sender.post(url, body, headers)
        except TargetRefusedError as error:
            return Outcome.REFUSED, str(error)
        except NoAnswerError as error:
            return failed, str(error)
        if 200 <= status < 300:
            return Outcome.DELIVERED, f"HTTP {status}"
        # Redirects are not followed: a moved receiver has to be named anew.
        return Outcome.FAILED if status == _GONE else failed, f"HTTP {status}"


def _tries(job: Job) -> int:
    tries: Any = job.meta.get("tries", 0)
    return tries if isinstance(tries, int) and tries >= 0 else 0
