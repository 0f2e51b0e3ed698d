"""RQ's jobs as this worker needs them: taken, kept and finished a batch at a time.

Each of the three is one script that makes in Redis the changes that RQ's own classes would make
job by job, and makes them only if the job is still this worker's. So a process that was stopped
for long, or a client that sends a command again because its answer was lost, does nothing twice.
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
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import DequeueTimeout
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.registry import FinishedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now, utcformat
from rq.worker import BaseWorker, WorkerStatus

from app.schemas import JOB_FUNCTION
from app.tracing import Origin, origin_of

BEAT_INTERVAL = 10.0  # s
EXECUTION_TTL = 35  # s without a beat until a job counts as abandoned: three beats missed
MAINTENANCE_INTERVAL = 10  # s
"""A killed worker's jobs are in the queue again within a minute.

A living worker looks for them whenever this interval is over, and an idle one wakes that often:
passes are at most two intervals apart. A job counts as abandoned after 35 s and is found 20 s later
at most: 55 s. It goes to the head of the queue.
"""

_LONGEST_PAYLOAD = 4096  # bytes, decompressed; ours have about 80
_TAKE_REMEMBERED = 600  # s
_ANY_TTL = 600  # s; for jobs that say nothing of how long their result is to be kept

_RESULTS = cast(str, Result.get_key(""))  # type: ignore[no-untyped-call]

_NAMES = f"""
local function job_key(id) return '{Job.key_for("")}' .. id end
local function results_key(id) return '{_RESULTS}' .. id end
local function executions_key(id) return '{ExecutionRegistry.key_template.format("")}' .. id end
local function execution_key(id, execution)
    return '{RQ_KEY_PREFIX}:execution:' .. id .. ':' .. execution
end
"""

# As RQ's Execution.create and Job.prepare_for_execution, or their heartbeats.
_HOLD = f"""
local function hold(started, index, worker, id, execution, created_at, moment, time, ttl)
    local name, key = id .. ':' .. execution, execution_key(id, execution)
    local due = math.floor(moment) + ttl
    -- First, for a full Redis allows it, and then whatever else the script writes.
    redis.call('EXPIRE', key, ttl)
    redis.call('HSET', key, 'id', execution, 'job_id', id, 'created_at', created_at,
        'last_heartbeat', moment, 'worker_name', worker)
    redis.call('EXPIRE', key, ttl)
    redis.call('ZADD', executions_key(id), due + 60, execution)
    redis.call('EXPIRE', executions_key(id), ttl + 60)
    redis.call('ZADD', started, due, name)
    redis.call('SADD', index, name)
    redis.call('HSET', job_key(id), 'last_heartbeat', time, 'status', '{JobStatus.STARTED.value}',
        'worker_name', worker)
end
"""

# KEYS: queue, started registry, worker, its executions, what it took last, whether to take nothing
# ARGV: token, most, whether nothing is in hand (1 or 0), worker, moment (s), time, ttl
# The token names this take: sent again because no answer came, it tells what was taken.
# The worker's state is written before anything else: a full Redis refuses that, and so all of it.
_TAKE = (
    _NAMES
    + _HOLD
    + f"""
local token, most, idle, worker, moment, time, ttl = unpack(ARGV)
local alone = 0
local names = redis.call('LRANGE', KEYS[5], 0, -1)
if table.remove(names, 1) ~= token then
    if redis.call('EXISTS', KEYS[6]) == 1 then return false end
    names = {{}}
    while #names < tonumber(most) do
        local id = redis.call('LINDEX', KEYS[1], 0)
        if not id then break end
        local left = redis.call('HGET', job_key(id), 'retries_left')
        if left == '0' and (idle == '0' or #names > 0) then
            alone = 1
            break
        end
        redis.call('HSET', KEYS[3], 'state', '{WorkerStatus.BUSY.value}')
        redis.call('LPOP', KEYS[1])
        if redis.call('EXISTS', job_key(id)) == 1 then
            names[#names + 1] = id
            hold(KEYS[2], KEYS[4], worker, id, token .. '-' .. #names, moment, moment, time, ttl)
            redis.call('HSET', job_key(id), 'started_at', time)
            redis.call('PERSIST', job_key(id))
            if left == '0' then break end
        end
    end
    if #names > 0 then
        redis.call('DEL', KEYS[5])
        redis.call('RPUSH', KEYS[5], token, unpack(names))
        redis.call('EXPIRE', KEYS[5], {_TAKE_REMEMBERED})
        redis.call('EXPIRE', KEYS[4], ttl + 60)
    end
end
local taken = {{}}
for number, id in ipairs(names) do
    local found = redis.call('HMGET', job_key(id), 'data', 'result_ttl', 'retries_left',
        'meta')
    taken[number] = {{id, found[1], found[2], found[3], found[4]}}
end
return {{alone, taken}}
"""
)

# KEYS: started registry, executions of the worker
# ARGV: worker, moment (s), time, ttl; of each job its id, execution and start (s)
_KEEP = (
    _NAMES
    + _HOLD
    + """
local worker, moment, time, ttl = unpack(ARGV, 1, 4)
for at = 5, #ARGV, 3 do
    local id, execution, created_at = unpack(ARGV, at, at + 2)
    if redis.call('ZSCORE', KEYS[1], id .. ':' .. execution) then
        hold(KEYS[1], KEYS[2], worker, id, execution, created_at, moment, time, ttl)
    end
end
"""
)

# KEYS: started registry, finished registry, worker, its executions
# ARGV: worker, moment (s), time; of each job its id, execution, start (s), ttl (s) and result
_FINISH = (
    _NAMES
    + f"""
local worker, moment, time = unpack(ARGV, 1, 3)
local finished = {{}}
for at = 4, #ARGV, 5 do
    local id, execution, started_at, ttl, result = unpack(ARGV, at, at + 4)
    local name = id .. ':' .. execution
    if not redis.call('ZSCORE', KEYS[1], name) then
        finished[#finished + 1] = 0
    else
        redis.call('HINCRBY', KEYS[3], 'successful_job_count', 1)
        redis.call('HINCRBYFLOAT', KEYS[3], 'total_working_time', moment - started_at)
        redis.call('HSET', job_key(id), 'status', '{JobStatus.FINISHED.value}', 'ended_at', time)
        redis.call('EXPIRE', job_key(id), ttl)
        redis.call('XADD', results_key(id), 'MAXLEN', '~', 10, '*',
            'type', {Result.Type.SUCCESSFUL.value}, 'worker_name', worker, 'return_value', result,
            'execution_id', execution, 'execution_started_at', started_at,
            'execution_ended_at', moment)
        redis.call('EXPIRE', results_key(id), ttl)
        redis.call('ZADD', KEYS[2], math.floor(moment) + ttl, id)
        redis.call('DEL', execution_key(id, execution))
        redis.call('ZREM', KEYS[1], name)
        redis.call('ZREM', executions_key(id), execution)
        redis.call('SREM', KEYS[4], name)
        finished[#finished + 1] = 1
    end
end
return finished
"""
)


class SuspendedError(Exception):
    """Workers are to take nothing at present (`rq suspend`)."""


class PayloadError(ValueError):
    """A job that is not one of ours."""


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
    last_try: bool
    """Whether it fails for good if it is abandoned once more."""
    origin: Origin
    """The request behind it."""

    @property
    def name(self) -> str:
        """What the started registry calls it."""
        return f"{self.id}:{self.execution}"

    def check(self) -> None:
        """See that this is a detection's job.

        Raises:
            PayloadError: another function, other arguments, or data that is not JSON.
        """
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

    A job on its last try is taken alone: should it end the process, it takes no other with it.

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
        worker.connection.eval(
            _TAKE,
            6,
            queue.key,
            queue.started_job_registry.key,
            worker.key,
            worker.executions_key,
            f"{worker.key}:taken",
            WORKERS_SUSPENDED,
            token,
            most,
            int(idle),
            worker.name,
            started.timestamp(),
            utcformat(started),
            EXECUTION_TTL,
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
            result_ttl=_seconds(ttl),
            last_try=left == b"0",
            origin=_origin(meta),
        )
        for number, (name, payload, ttl, left, meta) in enumerate(rows, start=1)
    ]
    return taken, bool(alone)


def keep(pipeline: Pipeline, queue: Queue, worker: BaseWorker, held: Sequence[Held]) -> None:
    """Say that jobs are not abandoned, except those that have been taken for it already."""
    moment = now()
    pipeline.eval(
        _KEEP,
        2,
        queue.started_job_registry.key,
        worker.executions_key,
        worker.name,
        moment.timestamp(),
        utcformat(moment),
        EXECUTION_TTL,
        *(word for job in held for word in (job.id, job.execution, job.started_at)),
    )


def finish(
    pipeline: Pipeline, queue: Queue, worker: BaseWorker, held: Sequence[Held], results: list[str]
) -> None:
    """What of RQ's success path concerns us: no dependents, callbacks, repeats or webhooks.

    The command added to `pipeline` answers with a list: 1 for each job that it finished; 0 for
    one that has been taken for abandoned, of which nothing is changed.
    """
    moment = now()
    pipeline.eval(
        _FINISH,
        4,
        queue.started_job_registry.key,
        FinishedJobRegistry(queue=queue).key,
        worker.key,
        worker.executions_key,
        worker.name,
        moment.timestamp(),
        utcformat(moment),
        *(
            word
            for job, result in zip(held, results, strict=True)
            for word in (
                job.id,
                job.execution,
                job.started_at,
                job.result_ttl,
                b64encode(json.dumps(result).encode()),
            )
        ),
    )


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


def _seconds(ttl: bytes | None) -> int:
    return int(ttl) if ttl is not None and ttl.isdigit() and int(ttl) > 0 else _ANY_TTL
