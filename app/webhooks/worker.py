"""`gamma webhooks`: an RQ worker for the delivery queue, with RQ's scheduler.

A stock `rq worker --with-scheduler` does the same work, one delivery at a time, each in a new
process. This worker delivers in several threads, has Prometheus metrics, and never imports names
from job payloads.
"""

from __future__ import annotations

import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import WorkerStatus

from app.contract.client import connect
from app.contract.ports import check_port
from app.contract.registration import RegisteredWorker
from app.contract.settings import Settings
from app.webhooks import metrics
from app.webhooks.delivery import Deliverer, DeliveryFailedError
from app.webhooks.queue import Deliveries

_RETRIES = 240  # survives about two minutes without Redis
_MAINTENANCE_INTERVAL = 30  # s, between searches for deliveries of dead workers
_WORKER_TTL = _MAINTENANCE_INTERVAL + 15  # s; RQ waits 15 s less for a job
_SCHEDULER_INTERVAL = 1  # s

log = structlog.get_logger()


class WorkerStoppedError(RuntimeError):
    """RQ's work loop ended without a stop signal; RQ has logged the reason."""

    def __init__(self) -> None:
        super().__init__("the delivery worker stopped unexpectedly")


class DeliveryJob(Job):
    """A job that can only run a delivery; the function name in it is never imported."""

    deliverer: Deliverer

    def _execute(self) -> Any:
        return self.deliverer.run(self)

    @property
    def success_callback(self) -> None:
        """Never run."""

    @property
    def failure_callback(self) -> None:
        """Never run."""

    @property
    def stopped_callback(self) -> None:
        """Never run."""

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """Do nothing: RQ's own webhooks would bypass the rules for targets."""


class DeliveryWorker(RegisteredWorker):
    """RQ's worker with a thread pool, because deliveries mostly wait for receivers."""

    job_class = DeliveryJob
    death_penalty_class = TimerDeathPenalty  # the default one needs the main thread

    def __init__(self, queue: Queue, redis: Redis, deliverer: Deliverer, threads: int) -> None:
        super().__init__(
            [queue.name],
            # Unique: after a kill -9, RQ would refuse the same name for minutes.
            name=f"{socket.gethostname()}-webhooks-{secrets.token_hex(4)}",
            connection=redis,
            serializer=JSONSerializer,
            maintenance_interval=_MAINTENANCE_INTERVAL,
            worker_ttl=_WORKER_TTL,
            log_job_description=False,
        )
        self._deliverer = deliverer
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="delivery")
        self._free = threading.Semaphore(threads)

    @property
    def asked_to_stop(self) -> bool:
        """Whether a stop signal was received."""
        return self._shutdown_requested_date is not None

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job in a thread, and wait until a thread is free for the next job."""
        cast(DeliveryJob, job).deliverer = self._deliverer
        execution = self.prepare_execution(job)
        self._free.acquire()
        self._threads.submit(self._perform, job, queue, execution)
        with self._free:
            self.set_state(WorkerStatus.IDLE)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """As RQ's, except for failed deliveries, which are logged already."""
        if not isinstance(exc_info[1], DeliveryFailedError):
            super().handle_exception(job, *exc_info)

    def teardown(self) -> None:
        """Finish running deliveries."""
        self._threads.shutdown()
        super().teardown()  # type: ignore[no-untyped-call]

    def _perform(self, job: Job, queue: Queue, execution: Execution) -> None:
        try:
            self.perform_job(job, queue, execution)
        except RedisError as error:  # RQ finds the abandoned job and runs it again
            log.error("webhook_unrecorded", delivery_id=job.id, error=str(error))
        finally:
            self._free.release()


class Scheduler(threading.Thread):
    """RQ's scheduler in a thread: it enqueues deliveries when they are due.

    RQ itself would fork a process, which is unsafe with threads; and that process would survive a
    killed parent and keep its port open. Only one worker schedules at a time.
    """

    def __init__(self, queue: Queue, redis: Redis) -> None:
        super().__init__(name="scheduler", daemon=True)
        self._scheduler = RQScheduler(
            [queue],
            connection=redis,
            interval=_SCHEDULER_INTERVAL,
            logging_level="WARNING",
            serializer=JSONSerializer,
        )
        self._stopping = threading.Event()

    def run(self) -> None:
        """Schedule until stopped; errors of Redis are logged and retried."""
        while not self._stopping.wait(_SCHEDULER_INTERVAL):
            try:
                if not self._scheduler.acquired_locks:
                    self._scheduler.acquire_locks()  # type: ignore[no-untyped-call]
                    self._scheduler.register_birth()
                if self._scheduler.acquired_locks:
                    self._scheduler.heartbeat()  # type: ignore[no-untyped-call]
                    self._scheduler.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]
            except Exception as error:  # otherwise the thread would end silently
                log.error("scheduler_failed", error=repr(error))
        try:
            self._scheduler.stop()  # type: ignore[no-untyped-call]
        except RedisError as error:
            log.error("scheduler_lock_kept", error=str(error))

    def stop(self) -> None:
        """Stop the thread and release the lock, so that another worker can schedule."""
        self._stopping.set()
        self.join()


def run(settings: Settings) -> None:
    """Deliver until SIGINT or SIGTERM, then finish running deliveries.

    Raises:
        WebhooksOffError: If there is no signing secret.
        CallersFileError: If `GAMMA_CALLERS_FILE` is invalid.
        RedisUrlMissingError: If no Redis is configured.
        WorkerStoppedError: If the worker stops unexpectedly; the supervisor should restart it.
        RedisError: If Redis is unavailable.
        PortError: If the metrics port is in use.
    """
    check_port(settings.metrics_host, settings.metrics_port, "GAMMA_METRICS_PORT")
    redis = connect(settings.required_redis_url, retries=_RETRIES)
    deliverer = Deliverer.of(settings, redis, settings.webhook_threads)
    queue = Deliveries(redis, settings).queue
    metrics.expose(settings.metrics_host, settings.metrics_port)
    worker = DeliveryWorker(queue, redis, deliverer, settings.webhook_threads)
    scheduler = Scheduler(queue, redis)
    scheduler.start()
    log.info("webhooks_ready", queue=queue.name)
    try:
        # RQ's `info` lines duplicate those of this module.
        worker.work(logging_level="DEBUG" if settings.log_level == "debug" else "ERROR")
    finally:
        scheduler.stop()
    if not worker.asked_to_stop:
        raise WorkerStoppedError
