"""RQ worker that processes many jobs at once and batches their crops into forward passes.

It supports RQ's life cycle (registries, results, retries, suspension, warm shutdown), takes and
finishes groups of jobs in one round trip each, and never calls functions named in a payload. On
shutdown it puts jobs that have not started back into the queue and finishes the others within the
stop timeout.
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
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

import structlog
from redis import Redis
from redis.client import Pipeline as Commands
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import WorkerStatus

from app.contract.blobs import StorageUnavailableError
from app.contract.models import WorkerInfo
from model.canary import ModelSickError
from worker import jobs, metrics
from worker.budget import Budget
from worker.completion import CompletingWorker
from worker.heartbeat import Heartbeat
from worker.jobs import TakenJob
from worker.pipeline import Pipeline, Result
from worker.processing import Processor

ANNOUNCE_TTL = 35  # s; three missed heartbeats
UNREADY_AFTER = 120.0  # s without a forward pass while crops wait, until not ready
EXIT_AFTER = 600.0  # s likewise, until the process exits and other workers take its jobs
_WORKER_TTL = jobs.MAINTENANCE_INTERVAL + 15  # s; RQ's dequeue timeout is 15 s shorter
_MAX_GROUPS = 2  # one on the device, one being decoded
_CHECK_INTERVAL = 1.0  # s between checks for signals and dead workers while the worker is full
_ENDING = 5.0  # s of `stop_timeout` reserved for putting back unfinished jobs and exiting

log = structlog.get_logger()


class BatchWorker(CompletingWorker):
    """Takes groups of up to `max_batch` jobs and processes several groups at once.

    It works on one queue. Taking a job and registering it as this worker's is atomic, so neither a
    crash nor a lost reply loses jobs.

    Attributes:
        failure: the error that ended the worker, if any.
    """

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
        stop_timeout: float = 60.0,
    ) -> None:
        super().__init__(
            [queue],
            name=info.name,
            connection=connection,
            serializer=JSONSerializer,
            exception_handlers=[self._note_abandoned],
            maintenance_interval=jobs.MAINTENANCE_INTERVAL,
            worker_ttl=_WORKER_TTL,
            job_monitoring_interval=int(jobs.BEAT_INTERVAL),
            log_job_description=False,
        )
        self.failure: Exception | None = None
        self._store = processor.store
        self._provenance = processor.provenance
        self._info = info
        self._max_batch = max_batch
        self._stop_timeout = stop_timeout
        self._timer: threading.Timer | None = None
        self._jobs_left: float = math.inf
        self._taken: list[TakenJob] = []
        self._ready = True
        self._announcing = threading.Lock()  # guards _ready and its announcement in Redis
        self._in_progress: dict[str, TakenJob] = {}  # by detection id
        metrics.JOBS_IN_HAND.set_function(lambda: len(self._in_progress))
        self._lock = threading.Lock()  # guards _in_progress
        self._slots = Budget(_MAX_GROUPS * max_batch)
        self._heartbeat = Heartbeat(self._beat, jobs.BEAT_INTERVAL)
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
        """Like RQ's; `max_jobs` counts jobs, not groups."""
        self._jobs_left = math.inf if max_jobs is None else max_jobs
        return super().work(*args, **kwargs)

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Register with RQ, then start the heartbeat, which announces this worker as ready."""
        super().bootstrap(*args, **kwargs)
        self._heartbeat.start()

    def teardown(self) -> None:
        """Finish the jobs in progress, or put them back when the stop timeout is near."""
        self._state = WorkerStatus.BUSY  # so that RQ does not raise StopRequested on a signal
        self._withdraw()
        self._store.blobs.stop_retrying()
        stopping = self._shutdown_requested_date is not None or self.failure is not None
        if stopping:
            self._start_exit_timer()
        ended = self._drain() if stopping else self._pipeline.close()
        self._heartbeat.stop()
        super().teardown()  # type: ignore[no-untyped-call]
        if self._timer is not None:
            self._timer.cancel()
        if not ended:
            log.warning("stopped_at_work", seconds=self._stop_timeout)
            os._exit(0 if self.failure is None else 1)  # a forward pass cannot be interrupted

    def _left(self) -> float:
        """Seconds left of the stop timeout."""
        since = self._shutdown_requested_date or now()
        return self._stop_timeout - (now() - since).total_seconds()

    def handle_warm_shutdown_request(self) -> None:
        """Like RQ's; also starts a timer that exits even if a Redis call never returns."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        self._start_exit_timer()

    def _start_exit_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(max(0.0, self._left() - 1), os._exit, (1,))
            self._timer.daemon = True
            self._timer.start()

    def _drain(self) -> bool:
        """Put back jobs that have not started, then those not finished in time.

        Returns:
            Whether all pipeline threads have ended.
        """
        started = self._pipeline.drain()
        self._put_back(self._remove(started), "stopping")
        try:
            ended = self._pipeline.close(max(0.0, self._left() - _ENDING))
        except SystemExit:  # a second signal asks for an immediate end
            ended = self._pipeline.close(0.0)
        dying = not isinstance(self.failure, RedisError | ModelSickError | None)
        self._put_back(self._remove(), repr(self.failure) if dying else "stopping", dying=dying)
        return ended

    def _remove(self, kept: Collection[str] = ()) -> list[TakenJob]:
        """Remove and return the jobs in progress except `kept`."""
        with self._lock:
            return [
                self._in_progress.pop(name) for name in list(self._in_progress) if name not in kept
            ]

    def check_for_suspension(self, burst: bool) -> None:
        """Do nothing: taking jobs checks for suspension."""

    def run_maintenance_tasks(self) -> None:
        """Like RQ's, after a heartbeat, so that an outage of Redis does not abandon jobs here."""
        self._beat()
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def heartbeat(self, timeout: int | None = None, pipeline: Commands | None = None) -> None:
        """Like RQ's, at most once per second."""
        due = self.last_heartbeat is None or now() - self.last_heartbeat > timedelta(seconds=1)
        if pipeline is not None or due:
            super().heartbeat(timeout, pipeline)

    def set_state(self, state: str, pipeline: Commands | None = None) -> None:
        """Like RQ's, but stored as busy while jobs are in progress.

        `_state` itself stays idle, since a signal ends RQ's wait for a job only in that state.
        """
        busy = state == WorkerStatus.IDLE and self._in_progress
        super().set_state(WorkerStatus.BUSY if busy else state, pipeline)
        self._state = state
        if state == WorkerStatus.IDLE and self._stop_requested:
            raise StopRequested  # a signal came before, which RQ would not check until the next job

    # -- taking --------------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Take a group of jobs; waits for a job like RQ if there are none.

        In burst mode the queue counts as empty only when no jobs are in progress, since those may
        be put back.
        """
        with self._noting_failure():
            while not self._stop_requested:
                idle = self._slots.wait_until_empty(0)
                try:
                    alone = self._take(idle)
                except jobs.SuspendedError:
                    super().check_for_suspension(burst=timeout is None)
                    continue
                if alone:
                    self._wait(self._slots.wait_until_empty)
                elif self._taken:
                    job = self.job_class(self._taken[0].id, self.connection, self.serializer)
                    return job, self.queues[0]
                elif timeout is not None:
                    if super().dequeue_job_and_maintain_ttl(timeout, max_idle_time) is None:
                        return None
                elif idle:
                    break
                else:
                    self._slots.wait_until_empty(_CHECK_INTERVAL)
        return None

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Pass the jobs taken to the pipeline, then wait until it can accept more."""
        with self._noting_failure():
            taken, self._taken = self._taken, []
            self._jobs_left -= len(taken)
            if self._jobs_left <= 0:
                self._stop_requested = True
            self._accept(taken)
            alone = any(job.suspect for job in taken)
            self._wait(self._slots.wait_until_empty if alone else self._slots.wait)

    def _take(self, idle: bool) -> bool:
        """Take jobs without waiting; True if the next one has to wait to run alone."""
        self._state = WorkerStatus.BUSY  # a signal must not interrupt before `execute_job`
        self._taken, alone = jobs.take(
            self,
            self.queues[0],
            int(min(self._max_batch, self._jobs_left)),
            token=uuid.uuid4().hex,
            idle=idle,
        )
        return alone and not self._taken

    def _wait(self, wait: Callable[[float], bool]) -> None:
        while not self._stop_requested and not wait(_CHECK_INTERVAL):
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()

    def _accept(self, taken: Sequence[TakenJob]) -> None:
        """Pass new jobs to the pipeline.

        A job that is in progress here, put back by another worker and taken again, just continues.
        """
        with self._lock:
            new = [job for job in taken if job.id not in self._in_progress]
            self._in_progress.update({job.id: job for job in taken})
        self._slots.take(len(new))
        refused: dict[str, Result] = {}
        for job in new:
            try:
                job.check()
            except (jobs.PayloadError, jobs.DeadlyJobError) as error:
                refused[job.id] = error
        self._pipeline.feed([job.id for job in new if job.id not in refused])
        if refused:
            self._deliver(refused)

    def _deliver(self, results: dict[str, Result]) -> None:
        """Finish the jobs of these results, except those that are no longer this worker's."""
        with self._lock:
            taken = [self._in_progress.pop(name) for name in results if name in self._in_progress]
        errors = {name: end for name, end in results.items() if isinstance(end, Exception)}
        good = [job for job in taken if job.id not in errors]
        try:
            self._finish(good, results)
        except StorageUnavailableError as error:
            errors |= {job.id: error for job in good}
        self._fail([job for job in taken if job.id in errors], errors)
        self._slots.release(len(taken))

    # -- heartbeat and failure -----------------------------------------------------------------

    def _beat(self) -> None:
        """Send a heartbeat for this worker and its jobs; exit if the device hangs."""
        stalled = self._pipeline.stalled()
        if stalled > EXIT_AFTER:
            log.critical("device_hangs", seconds=stalled)
            os._exit(1)  # a thread that hangs in the device's driver cannot be ended otherwise
        with self._lock:
            taken = list(self._in_progress.values())
        with self.connection.pipeline(transaction=False) as pipeline:
            jobs.send_heartbeats(pipeline, self.queues[0], self, taken)
            self.heartbeat(pipeline=pipeline)
            pipeline.execute()
        self._announce(stalled)

    def _announce(self, stalled: float) -> None:
        with self._announcing:
            if self._ready and stalled < UNREADY_AFTER:
                metrics.WORKER_UP.set(1)
                self._store.workers.announce(self._info, ANNOUNCE_TTL)
            else:
                metrics.WORKER_UP.set(0)
                self._store.workers.withdraw(self.name)

    def _withdraw(self) -> None:
        with self._announcing:
            self._ready = False
            metrics.WORKER_UP.set(0)
            self._store.workers.withdraw(self.name)

    def _give_up(self, error: Exception) -> None:
        """Shut down after a fatal error; the supervisor starts a new process."""
        log.critical("giving_up", error=repr(error))
        self.failure = self.failure or error
        self._ready = False
        self._slots.lift()
        if self._shutdown_requested_date is None:  # a second signal would skip the warm shutdown
            os.kill(os.getpid(), signal.SIGTERM)  # wakes the main thread

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Keep an error that ends RQ's loop: RQ only logs it, and `run` has to raise it."""
        try:
            yield
        except StopRequested:
            raise
        except Exception as error:
            self.failure = self.failure or error
            raise


def worker_name() -> str:
    """Return a unique name: after SIGKILL, RQ would refuse the same name for minutes."""
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"
