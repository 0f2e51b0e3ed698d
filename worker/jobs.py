"""Taking, renewing, finishing and putting back RQ jobs in batches.

Retries count failures of a job, not of its worker. When a worker dies, any of its jobs may be the
cause: they keep their retries but become *suspects*, which run alone. A job that crashes its
workers is soon the only one affected by the crashes and fails after `MAX_DEATHS`; other jobs do not
fail however often workers are killed from outside.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job
from rq.registry import FinishedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from app.contract.schemas import JOB_FUNCTION
from app.contract.tracing import Origin
from worker import scripts, spans

BEAT_INTERVAL = 10.0  # s
EXECUTION_TTL = 35  # s without a heartbeat until a job counts as abandoned: three missed
MAINTENANCE_INTERVAL = 10  # s
"""A killed worker's jobs are in the queue again within a minute.

A job counts as abandoned after 35 s. Live workers look for abandoned jobs at least every two
intervals, so they find it within 55 s and put it at the head of the queue.
"""

_LONGEST_PAYLOAD = 4096  # bytes, decompressed; valid ones have about 80
_DEFAULT_TTL = 600  # s that RQ's result is kept if the job does not say


class SuspendedError(Exception):
    """Workers are suspended (`rq suspend`)."""


class PayloadError(ValueError):
    """A job is not a detection."""


class DeadlyJobError(Exception):
    """More than `MAX_DEATHS` workers have died while processing a job."""


@dataclass(frozen=True, slots=True)
class TakenJob:
    """A job that this worker has taken, and RQ's execution of it."""

    id: str
    execution: str
    started_at: float
    """Seconds since the epoch."""
    payload: bytes
    result_ttl: int
    """Seconds that RQ's result is kept."""
    deaths: int
    """Number of workers that died while processing it."""
    origin: Origin
    """Ids for its log lines."""

    @property
    def name(self) -> str:
        """Its name in the started registry."""
        return f"{self.id}:{self.execution}"

    @property
    def suspect(self) -> bool:
        """Whether it has to run alone."""
        return self.deaths > 0

    def check(self) -> None:
        """Check that this is a detection's job and may be attempted.

        Raises:
            DeadlyJobError: if too many workers have died while processing it.
            PayloadError: if the function or arguments are wrong or the payload is not JSON.
        """
        if self.deaths > scripts.MAX_DEATHS:
            raise DeadlyJobError(f"{self.deaths} workers have died while processing it")
        try:
            text = zlib.decompressobj().decompress(self.payload, _LONGEST_PAYLOAD)
        except zlib.error:  # RQ accepts uncompressed payloads too
            text = self.payload[:_LONGEST_PAYLOAD]
        try:
            call = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"job {self.id} has no readable payload") from error
        if call != [JOB_FUNCTION, None, [self.id], {}]:
            raise PayloadError(f"job {self.id} is not a detection")


class DetectionJob(Job):
    """A job whose payload is never imported or called; only its id is used."""

    _abandoned = False

    def abandon(self) -> None:
        """Mark the job as abandoned, so that `retry`, which RQ calls next, uses no retry."""
        self._abandoned = True
        self.retries_left = (self.retries_left or 0) + 1

    @property
    def func(self) -> Any:
        """Raise PayloadError: functions named in a payload are never called."""
        raise PayloadError(f"job {self.id} may not call the function in its payload")

    @property
    def success_callback(self) -> None:
        """None: callbacks are never called."""

    @property
    def failure_callback(self) -> None:
        """None: callbacks are never called."""

    @property
    def stopped_callback(self) -> None:
        """None: callbacks are never called."""

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """Do nothing: a payload could name any address."""

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Like RQ's, but puts the job near the head of the queue, since it has waited already."""
        super().retry(queue, pipeline)
        # Its source, not its hash: RQ's other commands in this transaction must not run twice, as
        # they would if Redis lacked the script.
        source = cast(bytes, scripts.REINSERT.script).decode()
        pipeline.eval(source, 1, queue.key, self.id, int(self._abandoned))


class DetectionQueue(Queue):
    """A queue with a wait that loses no jobs, and maintenance that no dead worker blocks."""

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, connection: Redis, *_: Any, **__: Any
    ) -> tuple[Job, Queue]:
        """Wait until there is a job, and leave it in the queue, so that a lost reply loses nothing.

        Raises:
            DequeueTimeout: if there is none for `timeout` seconds.
        """
        (queue,) = queues
        waited = 0 if timeout is None else timeout
        head = cast(bytes | None, connection.blmove(queue.key, queue.key, waited, "LEFT", "LEFT"))
        if head is None:
            raise DequeueTimeout(timeout, queue.key)
        return DetectionJob(head.decode(), connection, JSONSerializer), queue

    def acquire_maintenance_lock(self) -> bool:
        """Like RQ's, but the lock expires after 20 s instead of 15 minutes."""
        lock = self.connection.set(
            self.registry_cleaning_key, 1, nx=True, ex=2 * MAINTENANCE_INTERVAL
        )
        return bool(lock)


def take(
    worker: BaseWorker, queue: Queue, most: int, token: str, *, idle: bool
) -> tuple[list[TakenJob], bool]:
    """Take jobs from the head of the queue and register them as this worker's, atomically.

    A suspect is taken alone, so that it affects no other job if it crashes the process.

    Args:
        worker: the worker that takes them.
        queue: the queue.
        most: maximum number of jobs, at least 1.
        token: identifies this call; repeating it returns the same jobs.
        idle: whether the worker has no jobs in progress.

    Returns:
        The jobs; whether the next job has to wait until the worker is idle.

    Raises:
        SuspendedError: if workers are suspended.
    """
    started = now()
    reply = cast(
        tuple[int, list[list[bytes | None]]] | None,
        scripts.TAKE(
            [
                queue.key,
                queue.started_job_registry.key,
                worker.key,
                worker.executions_key,
                f"{worker.key}:taken",
                WORKERS_SUSPENDED,
            ],
            [
                token,
                most,
                int(idle),
                worker.name,
                started.timestamp(),
                utcformat(started),
                EXECUTION_TTL,
            ],
            client=worker.connection,
        ),
    )
    if reply is None:
        raise SuspendedError
    alone, rows = reply
    taken = [
        TakenJob(
            id=cast(bytes, name).decode(),
            execution=f"{token}-{number}",
            started_at=started.timestamp(),
            payload=payload or b"",
            result_ttl=_number(ttl) or _DEFAULT_TTL,
            deaths=_number(deaths),
            origin=spans.begin(cast(bytes, name).decode(), _meta(meta), started.timestamp()),
        )
        for number, (name, payload, ttl, deaths, meta) in enumerate(rows, start=1)
    ]
    return taken, bool(alone)


def send_heartbeats(
    pipeline: Pipeline, queue: Queue, worker: BaseWorker, taken: Sequence[TakenJob]
) -> None:
    """Send heartbeats of the jobs that are still this worker's."""
    moment = now()
    scripts.HEARTBEAT(
        [queue.started_job_registry.key, worker.executions_key],
        [
            worker.name,
            moment.timestamp(),
            utcformat(moment),
            EXECUTION_TTL,
            *(word for job in taken for word in (job.id, job.execution, job.started_at)),
        ],
        client=pipeline,
    )


def finish(
    pipeline: Pipeline,
    queue: Queue,
    worker: BaseWorker,
    taken: Sequence[TakenJob],
    results: list[str],
) -> None:
    """Finish jobs like RQ, but without dependents, callbacks, repeats and webhooks.

    The command added to `pipeline` returns a list: 1 for each job that is finished, 0 for one that
    is no longer this worker's and is left unchanged.
    """
    moment = now()
    keys = [
        queue.started_job_registry.key,
        FinishedJobRegistry(queue=queue).key,
        worker.key,
        worker.executions_key,
    ]
    words = (
        word
        for job, result in zip(taken, results, strict=True)
        for word in (
            job.id,
            job.execution,
            job.started_at,
            job.result_ttl,
            b64encode(json.dumps(result).encode()),
        )
    )
    arguments = [worker.name, moment.timestamp(), utcformat(moment), *words]
    scripts.FINISH(keys, arguments, client=pipeline)


def put_back(
    worker: BaseWorker, queue: Queue, taken: Sequence[TakenJob], *, dying: bool = False
) -> list[bool]:
    """Put jobs back at the head of the queue without using a retry.

    Args:
        worker: the worker that took them.
        queue: the queue.
        taken: the jobs.
        dying: whether one of them may be the reason why this worker ends.

    Returns:
        For each job, whether it was still this worker's; others are left unchanged.
    """
    keys = queue.key, queue.started_job_registry.key, worker.executions_key
    words = [word for job in taken for word in (job.id, job.execution)]
    reply = scripts.PUT_BACK(keys, [int(dying), *words], client=worker.connection)
    return [bool(owned) for owned in cast(list[int], reply)]


def execution_of(job: TakenJob, worker: BaseWorker) -> Execution:
    """Return RQ's execution object of a job."""
    execution = Execution(job.execution, job.id, worker.connection, worker.name)
    execution.created_at = datetime.fromtimestamp(job.started_at, UTC)
    return execution


def _meta(meta: bytes | None) -> object:
    try:
        return json.loads((meta or b"null")[:_LONGEST_PAYLOAD])
    except (ValueError, RecursionError):
        return None


def _number(word: bytes | None) -> int:
    return int(word) if word is not None and word.isdigit() else 0
