"""RQ's jobs as this worker needs them: what is theirs, and their begin and end in Redis.

Begin, heartbeat and end are made of RQ's own commands, sent inside a script that runs them only if
the job is still this worker's. So a process that was stopped for long, or a client that sends a
transaction again because its answer was lost, does nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis.client import Pipeline
from rq import Queue
from rq.exceptions import DeserializationError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.results import Result
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from app.schemas import JOB_FUNCTION

BEAT_INTERVAL = 10.0  # s
EXECUTION_TTL = 35  # s without a beat until a job counts as abandoned: three beats missed
MAINTENANCE_INTERVAL = 10  # s
"""A killed worker's jobs are in the queue again within 2 minutes.

A living worker looks for them whenever this interval is over, and an idle one wakes that often:
passes are at most two intervals apart. A registered job counts as abandoned after 35 s and is found
20 s later at most: 55 s. One that was popped and not registered yet is first seen after 20 s at
most; the first pass more than 60 s later puts it back: 100 s. Both go to the head of the queue.
"""

# The commands in ARGV, each preceded by its number of words, from `at` on.
_RUN = """
while at <= #ARGV do
    local words = tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, at + words))
    at = at + words + 1
end
return 1
"""

# KEYS: started registry; ARGV: execution, commands…
_IF_OURS = (
    """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local at = 2
"""
    + _RUN
)

# KEYS: intermediate list, started registry; ARGV: job id, execution, commands…
# The second condition holds if the client sends this again because no answer came.
_IF_POPPED = (
    """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0
    and not redis.call('ZSCORE', KEYS[2], ARGV[2]) then return 0 end
local at = 3
"""
    + _RUN
)


class PayloadError(ValueError):
    """A job that is not one of ours."""


class DetectionJob(Job):
    """A job of which only the id is used: names in its payload are never imported."""

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
        """As RQ's, but at the head of the queue: it has waited already."""
        self.enqueue_at_front_on_retry = True
        super().retry(queue, pipeline)

    def check(self) -> None:
        """See that this is a detection's job.

        Raises:
            PayloadError: another function, other arguments, or data that is not JSON.
        """
        try:
            function, arguments = self.func_name, self.args
        except (DeserializationError, ValueError) as error:
            raise PayloadError(f"job {self.id} has no readable payload") from error
        if function != JOB_FUNCTION or list(arguments) != [self.id]:
            raise PayloadError(f"job {self.id} is not a detection")


class DetectionQueue(Queue):
    """A queue whose maintenance is not held up by a worker that died in the midst of it."""

    def acquire_maintenance_lock(self) -> bool:
        """As RQ's, for seconds instead of a quarter of an hour."""
        lock = self.connection.set(
            self.registry_cleaning_key, 1, nx=True, ex=2 * MAINTENANCE_INTERVAL
        )
        return bool(lock)


def begin(pipeline: Pipeline, queue: Queue, job: Job, worker: BaseWorker) -> Execution:
    """Register a popped job as this worker's.

    The command added to `pipeline` answers 1; or 0 if the job is no longer in the intermediate
    list, because this process was stopped so long that others have put it back. Sent twice, it
    registers once.
    """
    commands = worker.connection.pipeline()
    execution = Execution.create(job, EXECUTION_TTL, commands, worker.name)
    job.prepare_for_execution(worker.name, commands)
    commands.persist(job.key)
    pipeline.eval(
        _IF_POPPED,
        2,
        queue.intermediate_queue_key,
        job.started_job_registry.key,
        job.id,
        execution.composite_key,
        *_words(commands),
    )
    return execution


def keep(pipeline: Pipeline, job: Job, execution: Execution) -> None:
    """Say that an execution is not abandoned, unless it has been taken for it already."""
    commands = job.connection.pipeline()
    execution.heartbeat(job.started_job_registry, EXECUTION_TTL, commands)
    job.heartbeat(now(), EXECUTION_TTL, commands)
    _run_if_ours(pipeline, job, execution, commands)


def finish(
    pipeline: Pipeline, job: Job, execution: Execution, worker: BaseWorker, result: str
) -> None:
    """What of RQ's success path concerns us: no dependents, callbacks, repeats or webhooks.

    The command added to `pipeline` answers 1; or 0, having changed nothing, if the execution has
    been taken for abandoned. Sent twice, it finishes once.
    """
    commands = worker.connection.pipeline()
    ended_at = now()
    ttl = job.get_result_ttl(worker.default_result_ttl)
    worker.increment_successful_job_count(commands)
    if job.started_at is not None:
        worker.increment_total_working_time(ended_at - job.started_at, commands)
    commands.hset(
        job.key,
        mapping={"status": JobStatus.FINISHED.value, "ended_at": utcformat(ended_at)},
    )
    commands.expire(job.key, ttl)
    Result.create(
        job,
        Result.Type.SUCCESSFUL,
        ttl,
        return_value=result,
        worker_name=worker.name,
        pipeline=commands,
        execution_id=execution.id,
        execution_started_at=execution.created_at,
        execution_ended_at=ended_at,
    )
    job.finished_job_registry.add(job, ttl, commands)
    worker.cleanup_execution(job, commands, execution)
    _run_if_ours(pipeline, job, execution, commands)


def _run_if_ours(pipeline: Pipeline, job: Job, execution: Execution, commands: Pipeline) -> None:
    registry = job.started_job_registry.key
    pipeline.eval(_IF_OURS, 1, registry, execution.composite_key, *_words(commands))


def _words(commands: Pipeline) -> Iterator[Any]:
    for words, _ in commands.command_stack:
        yield len(words)
        yield from words
