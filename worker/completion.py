"""Completion of jobs: finishing, failing, or putting them back into the queue."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog
from rq.exceptions import AbandonedJobError
from rq.job import Job

from app.contract.blobs import StorageUnavailableError
from app.contract.details import detection_error
from app.contract.registration import RegisteredWorker
from app.contract.schemas import Detection, ErrorCode, Status
from app.contract.store import Store
from app.contract.tracing import Origin
from model.engine import ModelOutputError
from pictures.origin import Provenance
from worker import jobs, metrics, spans
from worker.jobs import TakenJob
from worker.metrics import JobOutcome
from worker.pipeline import Result
from worker.processing import Outcome

log = structlog.get_logger()


class CompletingWorker(RegisteredWorker):
    """The part of the batch worker that completes jobs, in RQ and in their records."""

    job_class = jobs.DetectionJob
    queue_class = jobs.DetectionQueue
    _store: Store
    _in_progress: dict[str, TakenJob]
    _provenance: Callable[[bytes], Provenance]

    def _finish(self, taken: Sequence[TakenJob], results: dict[str, Result]) -> None:
        """Write the records and finish the RQ jobs in one transaction."""
        if not taken:
            return
        origins = {job.id: job.origin for job in taken}
        outcomes = [outcome for job in taken if isinstance(outcome := results[job.id], Outcome)]
        with spans.stage("store", list(origins)), self.connection.pipeline() as pipeline:
            masks = self._store.keep_masks({one.detection.id: one.masks for one in outcomes})
            for outcome in outcomes:
                self._store.finish(pipeline, outcome.detection, masks[outcome.detection.id])
            jobs.finish(
                pipeline, self.queues[0], self, taken, [_status(results[job.id]) for job in taken]
            )
            if not self._in_progress:
                pipeline.hset(self.key, "state", self._state)
            replies = pipeline.execute()
        metrics.JOBS.labels(JobOutcome.SKIPPED).inc(len(taken) - len(outcomes))
        for outcome, changed in zip(outcomes, replies, strict=False):
            if changed:
                del masks[outcome.detection.id]
                good = outcome.detection.status is Status.SUCCEEDED
                metrics.JOBS.labels(JobOutcome.SUCCEEDED if good else JobOutcome.UNREADABLE).inc()
                metrics.count_statements(outcome.detection.provenance)
                _log(outcome.detection, origins[outcome.detection.id])
        self._store.drop_masks(masks)
        for job in taken:
            spans.end(job.id, _status(results[job.id]))
        owned = replies[len(outcomes)]
        self._log_lost([job for job, done in zip(taken, owned, strict=True) if not done])

    def _fail(self, taken: Sequence[TakenJob], errors: dict[str, Exception]) -> None:
        """Retry jobs through RQ, or move them to the failed registry if no retries are left.

        Jobs that failed because the bucket is unavailable are put back without using a retry.
        """
        unavailable = [job for job in taken if isinstance(errors[job.id], StorageUnavailableError)]
        if unavailable:
            self._put_back(unavailable, str(errors[unavailable[0].id]))
        taken = [job for job in taken if job not in unavailable]
        if not taken:
            return
        queue = self.queues[0]
        with self.connection.pipeline(transaction=False) as pipeline:
            for job in taken:
                pipeline.zscore(queue.started_job_registry.key, job.name)
            scores = pipeline.execute()
        found = self.job_class.fetch_many(
            [job.id for job in taken], self.connection, self.serializer
        )
        lost = []
        for job, score, known in zip(taken, scores, found, strict=True):
            if score is None or known is None:
                lost.append(job)
                continue
            error = errors[job.id]
            spans.end(job.id, "failed", error)  # before another thread takes it again
            if not known.should_retry:
                self._record_failure(known, error, job.origin)
            metrics.JOB_ERRORS.inc()
            log.warning("job_error", detection_id=job.id, error=repr(error), **job.origin)
            self._finalize_failure(
                known,
                queue,
                jobs.execution_of(job, self),
                (type(error), error, error.__traceback__),
            )
        self._log_lost(lost)

    def _put_back(self, taken: Sequence[TakenJob], reason: str, *, dying: bool = False) -> None:
        """Put jobs back at the head of the queue without using a retry."""
        if not taken:
            return
        for job in taken:  # before another thread takes it again
            spans.end(job.id, "put_back")
        owned = jobs.put_back(self, self.queues[0], taken, dying=dying)
        for job in itertools.compress(taken, owned):
            log.info("job_put_back", detection_id=job.id, reason=reason, **job.origin)
        self._log_lost([job for job, done in zip(taken, owned, strict=True) if not done])

    def _log_lost(self, taken: Sequence[TakenJob]) -> None:
        """Log for jobs that are no longer this worker's whether they were taken over or lost."""
        for job in taken:
            record = self._store.get(job.id)
            known = self.job_class.exists(job.id, self.connection)
            if known or (record is not None and record.status.finished):
                log.info("job_taken_over", detection_id=job.id, **job.origin)
            else:
                log.warning("job_lost", detection_id=job.id, **job.origin)

    def _note_abandoned(self, job: jobs.DetectionJob, kind: type[BaseException], *_: Any) -> None:
        """Handle RQ's clean-up of a dead worker's job, before RQ decides about a retry."""
        if kind is AbandonedJobError:
            job.abandon()

    def _record_failure(self, job: Job, cause: Exception, origin: Origin) -> None:
        invalid = isinstance(cause, ModelOutputError)
        code = ErrorCode.MODEL_OUTPUT_INVALID if invalid else ErrorCode.PROCESSING_FAILED
        error = detection_error(code)
        if self._store.fail(job.id, error, self._read_provenance(job.id)):
            metrics.JOBS.labels(JobOutcome.FAILED).inc()
            log.error(
                "detection",
                detection_id=job.id,
                status=Status.FAILED,
                code=error.code,
                **origin,
            )

    def _read_provenance(self, detection_id: str) -> Provenance | None:
        """Provenance of a picture without a score; None if its file cannot be fetched."""
        with suppress(StorageUnavailableError):
            picture = self._store.get_image(detection_id)
            if picture is not None:
                return self._provenance(picture)
        return None


def _status(outcome: Result) -> str:
    """Return value that RQ stores for the job."""
    return outcome.detection.status.value if isinstance(outcome, Outcome) else "skipped"


def _log(detection: Detection, origin: Origin) -> None:
    log.info(
        "detection",
        detection_id=detection.id,
        status=detection.status,
        code=detection.error and detection.error.code,
        **origin,
        **(detection.timings.model_dump() if detection.timings else {}),
    )
