"""An RQ worker that works on many jobs at once and shares forward passes among them.

It keeps RQ's whole life cycle (registries, results, retries, suspension, warm shutdown), takes
and finishes a batch in one pipeline each, and runs nothing that a payload names.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, cast

import structlog
from redis import Redis
from redis.client import Pipeline as Commands
from rq import Queue, worker_registration
from rq.exceptions import AbandonedJobError, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import SimpleWorker, WorkerStatus

from app.schemas import Detection, DetectionError, ErrorCode, Status, WorkerInfo
from worker import jobs, metrics
from worker.heart import Heart
from worker.pipeline import Budget, Pipeline, Result
from worker.processing import Outcome, Processor

ANNOUNCE_TTL = 35  # s; three beats missed
SICK_AFTER = 120.0  # s without a forward pass while crops wait: not ready
HOPELESS_AFTER = 600.0  # s, likewise: this process ends, others do its work
_WORKER_TTL = jobs.MAINTENANCE_INTERVAL + 15  # s; RQ waits 15 s less for a job
_GROUPS_IN_HAND = 2  # one on the device, one being decoded
_CHECK_INTERVAL = 1.0  # s; a full worker looks this often for signals and dead workers
_BURST_CHECK = 0.02  # s

log = structlog.get_logger()

Item = tuple[Job, Execution]


class BatchWorker(SimpleWorker):
    """Takes up to `max_batch` jobs at once and works on several such groups at the same time.

    One queue only: RQ then keeps what is popped in an intermediate list until it is registered,
    so that a crash between the two loses nothing.

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
        self._popped: list[Job] = []
        self._ready = True
        self._announcing = threading.Lock()  # guards _ready, and what Redis is told of it
        self._hands: dict[str, Item] = {}
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
        self._pipeline.close()
        with self._holding:
            left = dict(self._hands)
            self._hands.clear()
        error = self.failure or RuntimeError("not finished")
        self._fail(list(left.values()), dict.fromkeys(left, error))
        self._heart.stop()
        super().teardown()  # type: ignore[no-untyped-call]

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
                self._popped = self._pop(int(min(self._max_batch, self._jobs_left)))
                if self._popped:
                    return self._popped[0], self.queues[0]
                if timeout is not None:
                    return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
                if not self._hands:
                    break
                time.sleep(_BURST_CHECK)
        return None

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Hand the jobs that were taken on, and wait for room."""
        with self._noting_failure():
            popped, self._popped = self._popped or [job], []
            self._jobs_left -= len(popped)
            if self._jobs_left <= 0:
                self._stop_requested = True
            self._accept(self._begin(popped, queue))
            while not self._stop_requested and not self._room.wait(_CHECK_INTERVAL):
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()

    def _pop(self, most: int) -> list[Job]:
        """Up to `most` jobs, without waiting."""
        self._state = WorkerStatus.BUSY  # a signal must not get between popping and registering
        queue = self.queues[0]
        with self.connection.pipeline(transaction=False) as pipeline:
            for _ in range(most):
                pipeline.lmove(queue.key, queue.intermediate_queue_key)
            ids = [name.decode() for name in pipeline.execute() if name is not None]
        if not ids:
            return []
        found = self.job_class.fetch_many(ids, self.connection, self.serializer)
        with self.connection.pipeline(transaction=False) as pipeline:
            for name, job in zip(ids, found, strict=True):
                if job is None:  # expired
                    pipeline.lrem(queue.intermediate_queue_key, 1, name)
            pipeline.execute()
        return [job for job in found if job is not None]

    def _begin(self, popped: Sequence[Job], queue: Queue) -> list[Item]:
        """Register the executions of a group; from here on a crash is seen as abandonment."""
        with self.connection.pipeline() as pipeline:
            self.set_state(WorkerStatus.BUSY, pipeline)
            self.heartbeat(pipeline=pipeline)
            items = [(job, jobs.begin(pipeline, queue, job, self)) for job in popped]
            replies = pipeline.execute()[-len(items) :]
        return [item for item, ours in zip(items, replies, strict=True) if ours]

    def _accept(self, items: Sequence[Item]) -> None:
        """Feed what is new; a job that others put back while it was in hand here just goes on."""
        new = []
        with self._holding:
            for job, execution in items:
                if job.id in self._hands:
                    self.executions.pop(self._hands[job.id][1].id, None)
                else:
                    new.append(job)
                self._hands[job.id] = job, execution
                self.executions[execution.id] = execution
        self._room.take(len(new))
        refused: dict[str, Result] = {}
        for job in new:
            try:
                cast(jobs.DetectionJob, job).check()
            except jobs.PayloadError as error:
                refused[job.id] = error
        self._pipeline.feed([job.id for job in new if job.id not in refused])
        if refused:
            self._deliver(refused)

    # -- finishing -----------------------------------------------------------------------------

    def _deliver(self, results: dict[str, Result]) -> None:
        """Finish the jobs of these results, as far as they are still ours."""
        with self._holding:
            items = [self._hands.pop(name) for name in results]
        errors = {name: end for name, end in results.items() if isinstance(end, Exception)}
        self._finish([item for item in items if item[0].id not in errors], results)
        self._fail([item for item in items if item[0].id in errors], errors)
        self._room.release(len(items))

    def _finish(self, items: Sequence[Item], results: dict[str, Result]) -> None:
        """Write the records and finish the RQ jobs in one transaction."""
        if not items:
            return
        outcomes = [outcome for job, _ in items if isinstance(outcome := results[job.id], Outcome)]
        with metrics.stage("store"), self.connection.pipeline() as pipeline:
            for outcome in outcomes:
                self._store.finish(pipeline, outcome.detection, outcome.masks)
            for job, execution in items:
                jobs.finish(pipeline, job, execution, self, _status(results[job.id]))
            if not self._hands:
                pipeline.hset(self.key, "state", self._state)
            replies = pipeline.execute()
        for outcome, changed in zip(outcomes, replies, strict=False):
            if changed:
                metrics.JOBS.labels(outcome.detection.status).inc()
                _log(outcome.detection)
        for (job, _), ours in zip(items, replies[len(outcomes) :], strict=False):
            if not ours:
                log.warning("job_lost", detection_id=job.id)

    def _fail(self, items: Sequence[Item], errors: dict[str, Exception]) -> None:
        """RQ's failure path: again while retries are left, else the failed registry."""
        with self.connection.pipeline(transaction=False) as pipeline:
            for job, execution in items:
                pipeline.zscore(job.started_job_registry.key, execution.composite_key)
            ours = pipeline.execute()
        for (job, execution), score in zip(items, ours, strict=True):
            if score is None:
                log.warning("job_lost", detection_id=job.id)
                self.executions.pop(execution.id, None)
                continue
            error = errors[job.id]
            metrics.JOBS.labels("error").inc()
            self._finalize_failure(
                job, self.queues[0], execution, (type(error), error, error.__traceback__)
            )

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
            metrics.JOBS.labels(Status.FAILED).inc()

    # -- living and dying ----------------------------------------------------------------------

    def _beat(self) -> None:
        """Say that this worker lives, and that what is in hand is not abandoned."""
        self._announce()
        with self._holding:
            items = list(self._hands.values())
        with self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            for job, execution in items:
                jobs.keep(pipeline, job, execution)
            if pipeline.execute()[0]:  # Redis had forgotten this worker
                pipeline.hset(self.key, mapping=self.serialize())
                self.heartbeat(pipeline=pipeline)
                worker_registration.register(self, pipeline)
                pipeline.execute()

    def _announce(self) -> None:
        stalled = self._pipeline.stalled()
        if stalled > HOPELESS_AFTER:
            log.critical("device_hangs", seconds=stalled)
            os._exit(1)  # nothing less ends a thread that hangs in the device's driver
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


def _log(detection: Detection) -> None:
    log.info(
        "detection",
        detection_id=detection.id,
        status=detection.status,
        code=detection.error and detection.error.code,
        **(detection.timings.model_dump() if detection.timings else {}),
    )
