"""An RQ worker that works on many jobs at once and shares forward passes among them.

It keeps RQ's whole life cycle (registries, results, retries, suspension, warm shutdown), takes
and finishes a batch in one round trip each, and runs nothing that a payload names.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import structlog
from redis import Redis
from redis.client import Pipeline as Commands
from rq import Queue, worker_registration
from rq.exceptions import AbandonedJobError, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import SimpleWorker, WorkerStatus

from app.schemas import Detection, DetectionError, ErrorCode, Status, WorkerInfo
from app.store import StorageUnavailableError
from app.tracing import Origin, origin_of
from worker import jobs, metrics
from worker.heart import Heart
from worker.jobs import Held
from worker.metrics import JobOutcome
from worker.pipeline import Budget, Pipeline, Result
from worker.processing import Outcome, Processor

ANNOUNCE_TTL = 35  # s; three beats missed
SICK_AFTER = 120.0  # s without a forward pass while crops wait: not ready
HOPELESS_AFTER = 600.0  # s, likewise: this process ends, others do its work
_WORKER_TTL = jobs.MAINTENANCE_INTERVAL + 15  # s; RQ waits 15 s less for a job
_GROUPS_IN_HAND = 2  # one on the device, one being decoded
_CHECK_INTERVAL = 1.0  # s; a full worker looks this often for signals and dead workers

log = structlog.get_logger()


class BatchWorker(SimpleWorker):
    """Takes up to `max_batch` jobs at once and works on several such groups at the same time.

    One queue only: jobs leave it and are registered as this worker's in one step, so that neither
    a crash nor an answer that is lost on the way loses any.

    Attributes:
        failure: why the worker ended by itself, if it did.
    """

    job_class = jobs.DetectionJob
    queue_class = jobs.DetectionQueue

    def __init__(
        self,
        queue: str,
        connection: Redis,
        processor: Processor,
        info: WorkerInfo,
        *,
        max_batch: int,
        window: float = 0.0,
        threads: int = 2,
    ) -> None:
        super().__init__(
            [queue],
            name=info.name,
            connection=connection,
            serializer=JSONSerializer,
            exception_handlers=[self._record_abandoned],
            maintenance_interval=jobs.MAINTENANCE_INTERVAL,
            worker_ttl=_WORKER_TTL,
            job_monitoring_interval=int(jobs.BEAT_INTERVAL),
            log_job_description=False,
        )
        self.failure: Exception | None = None
        self._store = processor.store
        self._info = info
        self._max_batch = max_batch
        self._jobs_left: float = math.inf
        self._taken: list[Held] = []
        self._ready = True
        self._announcing = threading.Lock()  # guards _ready, and what Redis is told of it
        self._hands: dict[str, Held] = {}
        metrics.JOBS_IN_HAND.set_function(lambda: len(self._hands))
        self._holding = threading.Lock()  # guards _hands
        self._room = Budget(_GROUPS_IN_HAND * max_batch)
        self._heart = Heart(self._beat, jobs.BEAT_INTERVAL)
        self._pipeline = Pipeline(
            processor,
            max_batch=max_batch,
            window=window,
            threads=threads,
            deliver=self._deliver,
            give_up=self._give_up,
        )

    # -- RQ's life cycle -----------------------------------------------------------------------

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """As RQ's; `max_jobs` counts jobs, not groups of them."""
        self._jobs_left = math.inf if max_jobs is None else max_jobs
        return super().work(*args, **kwargs)

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Register with RQ, then say that this worker is warm and ready."""
        super().bootstrap(*args, **kwargs)
        self._heart.start()

    def teardown(self) -> None:
        """Take no more work, finish what is in hand; put back what cannot be finished."""
        self._state = WorkerStatus.BUSY  # a signal from now on is one to finish
        self._withdraw()
        self._store.blobs.hurry()
        self._pipeline.close()
        with self._holding:
            left = dict(self._hands)
            self._hands.clear()
        error = self.failure or RuntimeError("not finished")
        self._fail(list(left.values()), dict.fromkeys(left, error))
        self._heart.stop()
        super().teardown()  # type: ignore[no-untyped-call]

    def check_for_suspension(self, burst: bool) -> None:
        """Nothing: it is looked for in the step in which jobs are taken."""

    def run_maintenance_tasks(self) -> None:
        """As RQ's; what is in hand here is not abandoned, however long Redis was away."""
        self._beat()
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def heartbeat(self, timeout: int | None = None, pipeline: Commands | None = None) -> None:
        """As RQ's; one that follows another within a second is left out."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        elif self.last_heartbeat is None or now() - self.last_heartbeat > timedelta(seconds=1):
            with self.connection.pipeline(transaction=False) as own:
                super().heartbeat(timeout, own)
                own.execute()

    def set_state(self, state: str, pipeline: Commands | None = None) -> None:
        """As RQ's, but shown as busy while anything is in hand.

        To itself an idle worker stays idle: only then does a signal end RQ's wait for a job.
        """
        busy = state == WorkerStatus.IDLE and self._hands
        super().set_state(WorkerStatus.BUSY if busy else state, pipeline)
        self._state = state
        if state == WorkerStatus.IDLE and self._stop_requested:
            raise StopRequested  # the signal came before, and RQ looks no more until it has a job

    # -- taking --------------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Take a group of jobs; wait as RQ does, for one, if there are none.

        In burst mode the queue counts as empty once nothing in hand can come back to it.
        """
        with self._noting_failure():
            while not self._stop_requested:
                idle = self._room.wait_until_empty(0)
                try:
                    alone = self._take(idle)
                except jobs.SuspendedError:
                    super().check_for_suspension(burst=timeout is None)
                    continue
                if alone:
                    self._wait(self._room.wait_until_empty)
                elif self._taken:
                    job = self.job_class(self._taken[0].id, self.connection, self.serializer)
                    return job, self.queues[0]
                elif timeout is not None:
                    if super().dequeue_job_and_maintain_ttl(timeout, max_idle_time) is None:
                        return None
                elif idle:
                    break
                else:
                    self._room.wait_until_empty(_CHECK_INTERVAL)
        return None

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Hand the jobs that were taken on, and wait for room."""
        with self._noting_failure():
            taken, self._taken = self._taken, []
            self._jobs_left -= len(taken)
            if self._jobs_left <= 0:
                self._stop_requested = True
            self._accept(taken)
            alone = any(job.last_try for job in taken)
            self._wait(self._room.wait_until_empty if alone else self._room.wait)

    def _take(self, idle: bool) -> bool:
        """Take what there is, without waiting; True if the next job waits to be done alone."""
        self._state = WorkerStatus.BUSY  # a signal must not get between taking and handing on
        self._taken, alone = jobs.take(
            self,
            self.queues[0],
            int(min(self._max_batch, self._jobs_left)),
            token=uuid.uuid4().hex,
            idle=idle,
        )
        return alone and not self._taken

    def _wait(self, room: Callable[[float], bool]) -> None:
        while not self._stop_requested and not room(_CHECK_INTERVAL):
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()

    def _accept(self, taken: Sequence[Held]) -> None:
        """Feed what is new; a job that others put back while it was in hand here just goes on."""
        with self._holding:
            new = [job for job in taken if job.id not in self._hands]
            self._hands.update({job.id: job for job in taken})
        self._room.take(len(new))
        refused: dict[str, Result] = {}
        for job in new:
            try:
                job.check()
            except jobs.PayloadError as error:
                refused[job.id] = error
        self._pipeline.feed([job.id for job in new if job.id not in refused])
        if refused:
            self._deliver(refused)

    # -- finishing -----------------------------------------------------------------------------

    def _deliver(self, results: dict[str, Result]) -> None:
        """Finish the jobs of these results, as far as they are still ours."""
        with self._holding:
            held = [self._hands.pop(name) for name in results]
        errors = {name: end for name, end in results.items() if isinstance(end, Exception)}
        good = [job for job in held if job.id not in errors]
        try:
            self._finish(good, results)
        except StorageUnavailableError as error:
            errors |= {job.id: error for job in good}
        self._fail([job for job in held if job.id in errors], errors)
        self._room.release(len(held))

    def _finish(self, held: Sequence[Held], results: dict[str, Result]) -> None:
        """Write the records and finish the RQ jobs in one transaction."""
        if not held:
            return
        origins = {job.id: job.origin for job in held}
        outcomes = [outcome for job in held if isinstance(outcome := results[job.id], Outcome)]
        with metrics.stage("store"), self.connection.pipeline() as pipeline:
            masks = self._store.keep_masks({one.detection.id: one.masks for one in outcomes})
            for outcome in outcomes:
                self._store.finish(pipeline, outcome.detection, masks[outcome.detection.id])
            jobs.finish(
                pipeline, self.queues[0], self, held, [_status(results[job.id]) for job in held]
            )
            if not self._hands:
                pipeline.hset(self.key, "state", self._state)
            replies = pipeline.execute()
        metrics.JOBS.labels(JobOutcome.SKIPPED).inc(len(held) - len(outcomes))
        for outcome, changed in zip(outcomes, replies, strict=False):
            if changed:
                del masks[outcome.detection.id]
                good = outcome.detection.status is Status.SUCCEEDED
                metrics.JOBS.labels(JobOutcome.SUCCEEDED if good else JobOutcome.UNREADABLE).inc()
                _log(outcome.detection, origins[outcome.detection.id])
        self._store.drop_masks(masks)
        for job, ours in zip(held, replies[len(outcomes)], strict=True):
            if not ours:
                log.warning("job_lost", detection_id=job.id, **job.origin)

    def _fail(self, held: Sequence[Held], errors: dict[str, Exception]) -> None:
        """RQ's failure path: again while retries are left, else the failed registry."""
        if not held:
            return
        queue = self.queues[0]
        with self.connection.pipeline(transaction=False) as pipeline:
            for job in held:
                pipeline.zscore(queue.started_job_registry.key, job.name)
            scores = pipeline.execute()
        found = self.job_class.fetch_many(
            [job.id for job in held], self.connection, self.serializer
        )
        for job, score, known in zip(held, scores, found, strict=True):
            if score is None or known is None:
                log.warning("job_lost", detection_id=job.id, **job.origin)
                continue
            error = errors[job.id]
            if isinstance(error, StorageUnavailableError):
                self._put_back(known, job)
                log.warning("job_put_back", detection_id=job.id, error=str(error), **job.origin)
                continue
            metrics.JOB_ERRORS.inc()
            log.warning("job_error", detection_id=job.id, error=repr(error), **job.origin)
            self._finalize_failure(
                known,
                queue,
                jobs.execution_of(job, self),
                (type(error), error, error.__traceback__),
            )

    def _put_back(self, known: Job, job: Held) -> None:
        """To the head of the queue, with as many tries left as before: an outage costs none."""
        queue = self.queues[0]
        with self.connection.pipeline() as pipeline:
            self.cleanup_execution(known, pipeline=pipeline, execution=jobs.execution_of(job, self))
            queue._enqueue_job(known, pipeline=pipeline, at_front=True)
            pipeline.execute()

    def handle_job_failure(self, job: Job, *args: Any, **kwargs: Any) -> None:
        """As RQ does; when no retry is left, our record ends too."""
        if not job.should_retry:
            self._record_failure(job)
        super().handle_job_failure(job, *args, **kwargs)

    def _record_abandoned(self, job: Job, kind: type[BaseException], *_: Any) -> None:
        """Called by RQ's clean-up for the job of a dead worker, before it decides on a retry."""
        if kind is AbandonedJobError and not job.should_retry:
            self._record_failure(job)

    def _record_failure(self, job: Job) -> None:
        error = DetectionError(
            code=ErrorCode.PROCESSING_FAILED,
            detail="The worker could not finish it, and no further try is left.",
        )
        if self._store.fail(job.id, error):
            metrics.JOBS.labels(JobOutcome.FAILED).inc()
            log.error(
                "detection",
                detection_id=job.id,
                status=Status.FAILED,
                code=error.code,
                **origin_of(job.meta),
            )

    # -- living and dying ----------------------------------------------------------------------

    def _beat(self) -> None:
        """Say that what is in hand is not abandoned, and that this worker lives."""
        stalled = self._pipeline.stalled()
        if stalled > HOPELESS_AFTER:
            log.critical("device_hangs", seconds=stalled)
            os._exit(1)  # nothing less ends a thread that hangs in the device's driver
        with self._holding:
            held = list(self._hands.values())
        with self.connection.pipeline(transaction=False) as pipeline:
            jobs.keep(pipeline, self.queues[0], self, held)
            self.heartbeat(pipeline=pipeline)
            if pipeline.execute()[1]:  # Redis had forgotten this worker
                pipeline.hset(self.key, mapping=self.serialize())
                self.heartbeat(pipeline=pipeline)
                worker_registration.register(self, pipeline)
                pipeline.execute()
        self._announce(stalled)

    def _announce(self, stalled: float) -> None:
        with self._announcing:
            if self._ready and stalled < SICK_AFTER:
                metrics.WORKER_UP.set(1)
                self._store.announce(self._info, ANNOUNCE_TTL)
            else:
                metrics.WORKER_UP.set(0)
                self._store.withdraw(self.name)

    def _withdraw(self) -> None:
        with self._announcing:
            self._ready = False
            metrics.WORKER_UP.set(0)
            self._store.withdraw(self.name)

    def _give_up(self, error: Exception) -> None:
        """End this process in order; the supervisor starts another."""
        log.critical("giving_up", error=repr(error))
        self.failure = self.failure or error
        self._ready = False
        self._room.lift()
        if self._shutdown_requested_date is None:  # a second signal would not be an orderly end
            os.kill(os.getpid(), signal.SIGTERM)  # wakes the main thread, wherever it waits

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """RQ logs what ends its loop and returns; whoever started this process must know."""
        try:
            yield
        except StopRequested:
            raise
        except Exception as error:
            self.failure = self.failure or error
            raise


def worker_name() -> str:
    """Unique: after a kill -9, RQ would refuse the same name for minutes."""
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


def _status(outcome: Result) -> str:
    """What RQ keeps as the job's result."""
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
