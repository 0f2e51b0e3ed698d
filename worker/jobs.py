"""RQ's jobs as this worker needs them: taken, kept, finished and put back a batch at a time.

A try is a failure of a job, not of its worker. When a worker dies, nobody knows whether a job that
it had in hand was the cause: each keeps its tries, but is a *suspect* from then on, and done alone.
So a job that kills its workers is soon the only one that workers die with, and is given up after
`MOST_DEATHS`; being killed from outside again and again does not make an innocent one fail.
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
from app.contract.tracing import Origin, origin_of
from worker import scripts

BEAT_INTERVAL = 10.0  # s
EXECUTION_TTL = 35  # s without a beat until a job counts as abandoned: three beats missed
MAINTENANCE_INTERVAL = 10  # s
"""A killed worker's jobs are in the queue again within a minute.

A living worker looks for them whenever this interval is over, and an idle one wakes that often:
passes are at most two intervals apart. A job counts as abandoned after 35 s and is found 20 s later
at most: 55 s. It goes to the head of the queue.
"""

_LONGEST_PAYLOAD = 4096  # bytes, decompressed; ours have about 80
_ANY_TTL = 600  # s; for jobs that say nothing of how long their result is to be kept


class SuspendedError(Exception):
    """Workers are to take nothing at present (`rq suspend`)."""


class PayloadError(ValueError):
    """A job that is not one of ours."""


class DeadlyJobError(Exception):
    """A job that workers die with."""


@dataclass(frozen=True, slots=True)
class Held:
    """A job that this worker has taken, and RQ's execution of it."""

    id: str
    execution: str
    started_at: float
    """Seconds since the epoch."""
    payload: bytes
    result_ttl: int
    """Seconds that RQ's result is kept."""
    deaths: int
    """How many workers have died with it in hand."""
    origin: Origin
    """The request behind it."""

    @property
    def name(self) -> str:
        """What the started registry calls it."""
        return f"{self.id}:{self.execution}"

    @property
    def suspect(self) -> bool:
        """Whether it is done alone."""
        return self.deaths > 0

    def check(self) -> None:
        """See that this is a detection's job, and that it may be tried.

        Raises:
            DeadlyJobError: too many workers have died with it in hand.
            PayloadError: another function, other arguments, or data that is not JSON.
        """
        if self.deaths > scripts.MOST_DEATHS:
            raise DeadlyJobError(f"{self.deaths} workers have died with it in hand")
        try:
            text = zlib.decompressobj().decompress(self.payload, _LONGEST_PAYLOAD)
        except zlib.error:  # RQ reads what is not compressed too
            text = self.payload[:_LONGEST_PAYLOAD]
        try:
            call = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"job {self.id} has no readable payload") from error
        if call != [JOB_FUNCTION, None, [self.id], {}]:
            raise PayloadError(f"job {self.id} is not a detection")


class DetectionJob(Job):
    """A job of which only the id is used: names in its payload are never imported."""

    _abandoned = False

    def abandon(self) -> None:
        """Its worker has died: `retry`, which RQ calls next, is to cost no try."""
        self._abandoned = True
        self.retries_left = (self.retries_left or 0) + 1

    @property
    def func(self) -> Any:
        """Nothing to call."""
        raise PayloadError(f"job {self.id} may not be performed by name")

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
        """RQ's own webhooks are never sent: a payload could name any address."""

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """As RQ's, but near the head of the queue: it has waited already."""
        super().retry(queue, pipeline)
        scripts.RETURN([queue.key], [self.id, int(self._abandoned)], client=pipeline)


class DetectionQueue(Queue):
    """A queue that can be waited for, and whose maintenance no dead worker holds up."""

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, connection: Redis, *_: Any, **__: Any
    ) -> tuple[Job, Queue]:
        """Wait until there is a job, and leave it there: an answer that is lost loses nothing.

        Raises:
            DequeueTimeout: there was none for `timeout` seconds.
        """
        (queue,) = queues
        waited = 0 if timeout is None else timeout
        head = cast(bytes | None, connection.blmove(queue.key, queue.key, waited, "LEFT", "LEFT"))
        if head is None:
            raise DequeueTimeout(timeout, queue.key)
        return DetectionJob(head.decode(), connection, JSONSerializer), queue

    def acquire_maintenance_lock(self) -> bool:
        """As RQ's, for seconds instead of a quarter of an hour."""
        lock = self.connection.set(
            self.registry_cleaning_key, 1, nx=True, ex=2 * MAINTENANCE_INTERVAL
        )
        return bool(lock)


def take(
    worker: BaseWorker, queue: Queue, most: int, token: str, *, idle: bool
) -> tuple[list[Held], bool]:
    """Take jobs from the head of the queue and register them as this worker's, at once.

    A suspect is taken alone: should it end the process, it takes no other with it.

    Args:
        worker: whose they become.
        queue: where they wait.
        most: how many to take, at least 1.
        token: names this take; given again, it tells what was taken then.
        idle: whether the worker holds nothing.

    Returns:
        What was taken; whether the next job has to wait until the worker holds nothing.

    Raises:
        SuspendedError: see there.
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
        Held(
            id=cast(bytes, name).decode(),
            execution=f"{token}-{number}",
            started_at=started.timestamp(),
            payload=payload or b"",
            result_ttl=_number(ttl) or _ANY_TTL,
            deaths=_number(deaths),
            origin=_origin(meta),
        )
        for number, (name, payload, ttl, deaths, meta) in enumerate(rows, start=1)
    ]
    return taken, bool(alone)


def keep(pipeline: Pipeline, queue: Queue, worker: BaseWorker, held: Sequence[Held]) -> None:
    """Say that jobs are not abandoned, except those that have been taken for it already."""
    moment = now()
    scripts.KEEP(
        [queue.started_job_registry.key, worker.executions_key],
        [
            worker.name,
            moment.timestamp(),
            utcformat(moment),
            EXECUTION_TTL,
            *(word for job in held for word in (job.id, job.execution, job.started_at)),
        ],
        client=pipeline,
    )


def finish(
    pipeline: Pipeline, queue: Queue, worker: BaseWorker, held: Sequence[Held], results: list[str]
) -> None:
    """What of RQ's success path concerns us: no dependents, callbacks, repeats or webhooks.

    The command added to `pipeline` answers with a list: 1 for each job that is finished; 0 for one
    that is no longer this worker's, of which nothing is changed.
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
        for job, result in zip(held, results, strict=True)
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
    worker: BaseWorker, queue: Queue, held: Sequence[Held], *, dying: bool = False
) -> list[bool]:
    """Give jobs back to the head of the queue, with the tries that they had.

    Args:
        worker: whose they are.
        queue: where they came from.
        held: which.
        dying: whether one of them may be why this worker ends.

    Returns:
        For each, whether it was still this worker's; of others nothing is changed.
    """
    keys = queue.key, queue.started_job_registry.key, worker.executions_key
    words = [word for job in held for word in (job.id, job.execution)]
    reply = scripts.PUT_BACK(keys, [int(dying), *words], client=worker.connection)
    return [bool(ours) for ours in cast(list[int], reply)]


def execution_of(job: Held, worker: BaseWorker) -> Execution:
    """RQ's own object for it."""
    execution = Execution(job.execution, job.id, worker.connection, worker.name)
    execution.created_at = datetime.fromtimestamp(job.started_at, UTC)
    return execution


def _origin(meta: bytes | None) -> Origin:
    try:
        return origin_of(json.loads((meta or b"null")[:_LONGEST_PAYLOAD]))
    except (ValueError, RecursionError):
        return Origin()


def _number(word: bytes | None) -> int:
    return int(word) if word is not None and word.isdigit() else 0
