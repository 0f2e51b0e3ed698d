"""An RQ worker that works on many jobs at once and shares forward passes among them.

It keeps RQ's whole life cycle (registries, results, retries, suspension, warm shutdown), takes
and finishes a batch in one round trip each, and runs nothing that a payload names. Told to stop,
it gives back what is not begun, finishes the rest if it can, and ends in the time it is given.
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
from app.contract.schemas import WorkerInfo
from model.canary import ModelSickError
from worker import jobs, metrics
from worker.budget import Budget
from worker.endings import EndingWorker
from worker.heart import Heart
from worker.jobs import Held
from worker.pipeline import Pipeline, Result
from worker.processing import Processor

ANNOUNCE_TTL = 35  # s; three beats missed
SICK_AFTER = 120.0  # s without a forward pass while crops wait: not ready
HOPELESS_AFTER = 600.0  # s, likewise: this process ends, others do its work
_WORKER_TTL = jobs.MAINTENANCE_INTERVAL + 15  # s; RQ waits 15 s less for a job
_GROUPS_IN_HAND = 2  # one on the device, one being decoded
_CHECK_INTERVAL = 1.0  # s; a full worker looks this often for signals and dead workers
_ENDING = 5.0  # s of `stop_timeout` that are left to put back what is not finished, and to end

log = structlog.get_logger()


class BatchWorker(EndingWorker):
    """Takes up to `max_batch` jobs at once and works on several such groups at the same time.

    One queue only: jobs leave it and are registered as this worker's in one step, so that neither
    a crash nor an answer that is lost on the way loses any.

    Attributes:
        failure: why the worker ended by itself, if it did.
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
        """Take no more work; finish what is in hand, or put it back in time."""
        self._state = WorkerStatus.BUSY  # a signal from now on is one to finish
        self._withdraw()
        self._store.blobs.stop_retrying()
        told = self._shutdown_requested_date is not None or self.failure is not None
        if told:
            self._end_in_time()
        ended = self._drain() if told else self._pipeline.close()
        self._heart.stop()
        super().teardown()  # type: ignore[no-untyped-call]
        if self._timer is not None:
            self._timer.cancel()
        if not ended:
            log.warning("stopped_at_work", seconds=self._stop_timeout)
            os._exit(0 if self.failure is None else 1)  # a thread that computes ends no sooner

    def _left(self) -> float:
        """Seconds until a worker that was told to end has to have ended."""
        since = self._shutdown_requested_date or now()
        return self._stop_timeout - (now() - since).total_seconds()

    def handle_warm_shutdown_request(self) -> None:
        """As RQ's. From now on the time counts, even if a call of Redis never comes back."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        self._end_in_time()

    def _end_in_time(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(max(0.0, self._left() - 1), os._exit, (1,))
            self._timer.daemon = True
            self._timer.start()

    def _drain(self) -> bool:
        """Put back what is not begun, then what is not finished in time; False if some is not."""
        begun = self._pipeline.drain()
        self._put_back(self._let_go(begun), "stopping")
        try:
            ended = self._pipeline.close(max(0.0, self._left() - _ENDING))
        except SystemExit:  # a second signal: whoever sent it waits no longer
            ended = self._pipeline.close(0.0)
        dying = not isinstance(self.failure, RedisError | ModelSickError | None)
        self._put_back(self._let_go(), repr(self.failure) if dying else "stopping", dying=dying)
        return ended

    def _let_go(self, kept: Collection[str] = ()) -> list[Held]:
        """What is in hand but for these; it is so no more."""
        with self._holding:
            return [self._hands.pop(name) for name in list(self._hands) if name not in kept]

    def check_for_suspension(self, burst: bool) -> None:
        """Nothing: it is looked for in the step in which jobs are taken."""

    def run_maintenance_tasks(self) -> None:
        """As RQ's; what is in hand here is not abandoned, however long Redis was away."""
        self._beat()
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def heartbeat(self, timeout: int | None = None, pipeline: Commands | None = None) -> None:
        """As RQ's; one that follows another within a second is left out."""
        due = self.last_heartbeat is None or now() - self.last_heartbeat > timedelta(seconds=1)
        if pipeline is not None or due:
            super().heartbeat(timeout, pipeline)

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
            alone = any(job.suspect for job in taken)
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
            except (jobs.PayloadError, jobs.DeadlyJobError) as error:
                refused[job.id] = error
        self._pipeline.feed([job.id for job in new if job.id not in refused])
        if refused:
            self._deliver(refused)

    def _deliver(self, results: dict[str, Result]) -> None:
        """Finish the jobs of these results, as far as they are still ours."""
        with self._holding:
            held = [self._hands.pop(name) for name in results if name in self._hands]
        errors = {name: end for name, end in results.items() if isinstance(end, Exception)}
        good = [job for job in held if job.id not in errors]
        try:
            self._finish(good, results)
        except StorageUnavailableError as error:
            errors |= {job.id: error for job in good}
        self._fail([job for job in held if job.id in errors], errors)
        self._room.release(len(held))

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
            pipeline.execute()
        self._announce(stalled)

    def _announce(self, stalled: float) -> None:
        with self._announcing:
            if self._ready and stalled < SICK_AFTER:
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
