"""The Lua scripts write the same to Redis as RQ's classes."""

from __future__ import annotations

import re
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from rq import Queue
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend
from rq.worker import SimpleWorker

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.jobs import JobQueue
from app.contract.settings import Settings
from worker.jobs import (
    DeadlyJobError,
    DetectionJob,
    PayloadError,
    SuspendedError,
    TakenJob,
    finish,
    put_back,
    send_heartbeats,
    take,
)
from worker.scripts import MAX_DEATHS, TAKE

_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d{10}\.\d+|0\.\d+")
_TTLS = 5  # s; tolerance between two runs


class Stack:
    """A queue, and RQ's own worker for comparison."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.jobs = JobQueue(redis, Settings())
        self.queue = Queue("gamma", connection=redis, serializer=JSONSerializer)
        self.worker = SimpleWorker(
            [self.queue], name="tester", connection=redis, serializer=JSONSerializer
        )

    def enqueue(self, *names: str, **fields: object) -> None:
        with self.redis.pipeline() as pipeline:
            for name in names:
                self.jobs.enqueue(pipeline, name)
            for name in names:
                for field, value in fields.items():
                    pipeline.hset(f"rq:job:{name}", field, value)
            pipeline.execute()

    def take(self, most: int = 8, token: str | None = None, idle: bool = True):
        return take(self.worker, self.queue, most, token or uuid.uuid4().hex, idle=idle)

    def take_one(self) -> TakenJob:
        ((taken,), _) = self.take(1)
        return taken

    def do(self, action: Callable[..., None], *arguments: Any) -> Any:
        with self.redis.pipeline() as pipeline:
            action(pipeline, self.queue, self.worker, *arguments)
            return pipeline.execute()[0]

    def waiting(self) -> list[str]:
        return [name.decode() for name in self.redis.lrange(self.queue.key, 0, -1)]

    def snapshot(self, execution: str) -> dict[str, tuple[Any, int]]:
        """Everything in Redis with its TTL, without times."""

        def general(value: bytes | str) -> str:
            text = value if isinstance(value, str) else value.decode("latin-1")
            text = text.replace(execution, "EXECUTION")
            return _TIME.sub("TIME", text)

        found = {}
        for key in self.redis.scan_iter():
            kind = self.redis.type(key)
            if kind == b"hash":
                value = {general(k): general(v) for k, v in self.redis.hgetall(key).items()}
            elif kind == b"zset":
                value = [general(member) for member in self.redis.zrange(key, 0, -1)]
            elif kind == b"set":
                value = sorted(map(general, self.redis.smembers(key)))
            elif kind == b"stream":
                rows = self.redis.xrange(key)
                value = [{general(k): general(v) for k, v in row.items()} for _, row in rows]
            else:
                value = self.redis.lrange(key, 0, -1)
            # The TTL of the worker's own keys depends on its own heartbeat.
            mine = key.startswith(b"rq:worker:")
            found[general(key)] = value, 0 if mine else round(self.redis.ttl(key) / _TTLS)
        return found


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with (
        private_redis(tmp_path_factory.mktemp("redis"), 2**28) as (url, _),
        connect(url) as client,
    ):
        yield client


@pytest.fixture
def stack(redis: Redis) -> Stack:
    redis.flushall()
    return Stack(redis)


def test_take_heartbeat_and_finish_write_the_same_as_rq(stack: Stack) -> None:
    worker, queue = stack.worker, stack.queue
    stack.enqueue("a")
    assert stack.redis.lpop(queue.key) == b"a"
    job = queue.fetch_job("a")
    worker.get_heartbeat_ttl = lambda *_: 35
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    started = stack.snapshot(execution.id)
    worker._finalize_success(job, queue, execution, "succeeded")
    finished = stack.snapshot(execution.id)
    stack.redis.flushall()
    stack.enqueue("a")
    taken = stack.take_one()
    worker.heartbeat()  # the worker's own, which is separate from its jobs'
    assert stack.redis.delete("rq:worker:tester:taken") == 1
    assert stack.snapshot(taken.execution) == started
    stack.do(send_heartbeats, [taken])
    assert stack.snapshot(taken.execution) == started
    assert stack.do(finish, [taken], ["succeeded"]) == [1]
    assert stack.snapshot(taken.execution) == finished
    assert queue.fetch_job("a").return_value() == "succeeded"


def test_jobs_are_taken_in_order_without_expired_ones(stack: Stack) -> None:
    stack.enqueue("a", "b", "c", "d")
    stack.redis.delete("rq:job:b")
    taken, alone = stack.take(2)
    assert [job.id for job in taken] == ["a", "c"]
    assert not alone
    assert stack.waiting() == ["d"]
    assert stack.take(2, idle=False)[0][0].id == "d"
    assert stack.take() == ([], False)


def test_nothing_is_taken_while_workers_are_suspended(stack: Stack) -> None:
    stack.enqueue("a", "b")
    taken = stack.take(1, token="before")[0][0]
    suspend(stack.redis)
    with pytest.raises(SuspendedError):
        stack.take()
    assert stack.take(1, token="before")[0][0].name == taken.name  # repeated after a lost reply
    resume(stack.redis)
    assert [job.id for job in stack.take()[0]] == ["b"]


def test_repeated_take_returns_the_same_jobs(stack: Stack) -> None:
    stack.enqueue("a", "b", "c")
    first, _ = stack.take(2, token="first")
    again, _ = stack.take(2, token="first")
    assert [job.name for job in again] == [job.name for job in first]
    assert stack.waiting() == ["c"]
    assert StartedJobRegistry(queue=stack.queue).get_job_count(cleanup=False) == 2
    assert stack.take(2, token="second")[0][0].id == "c"


class LosesReplies(UnixDomainSocketConnection):
    """Loses the connection before it receives the reply to a take."""

    lost = 0

    def send_packed_command(self, command, check_health=True):
        super().send_packed_command(command, check_health)
        self.taking = TAKE.sha.encode() in b"".join(command)

    def read_response(self, *args, **kwargs):
        answer = super().read_response(*args, **kwargs)
        if self.taking and LosesReplies.lost < 2:
            LosesReplies.lost += 1
            self.disconnect()
            raise RedisConnectionError("lost")
        return answer


def test_lost_reply_loses_no_jobs(stack: Stack) -> None:
    stack.enqueue("a", "b", "c")
    path = stack.redis.connection_pool.connection_kwargs["path"]
    with connect(f"unix://{path}") as client:
        client.connection_pool.connection_class = LosesReplies
        stack.worker.connection = client
        taken, _ = stack.take(2)
    assert LosesReplies.lost == 2
    assert [job.id for job in taken] == ["a", "b"]
    assert stack.waiting() == ["c"]


def test_suspect_is_taken_alone(stack: Stack) -> None:
    stack.enqueue("a", "b")
    stack.enqueue("suspect", deaths=1)
    stack.enqueue("c")
    taken, alone = stack.take()
    assert [job.id for job in taken] == ["a", "b"]
    assert alone
    assert stack.take(idle=False) == ([], True)
    ((suspect,), alone) = stack.take(idle=True)
    assert suspect.id == "suspect"
    assert suspect.suspect
    assert not alone
    assert stack.waiting() == ["c"]


def test_jobs_put_back_keep_their_position_and_retries(stack: Stack) -> None:
    stack.enqueue("a", "b", "c", "d", "e")
    (a, b, c, d), _ = stack.take(4)
    stack.redis.zrem("rq:wip:gamma", b.name)  # another worker has it
    stack.enqueue("f")
    assert put_back(stack.worker, stack.queue, [d]) == [True]
    assert put_back(stack.worker, stack.queue, [c, b, a]) == [True, False, True]
    assert put_back(stack.worker, stack.queue, [a]) == [False]
    assert stack.waiting() == ["a", "c", "d", "e", "f"]
    assert stack.redis.keys("rq:execution:[^b]*") == stack.redis.keys("rq:wip:*") == []
    for name in "acd":
        job = stack.queue.fetch_job(name)
        assert (job.get_status(), job.retries_left) == ("queued", 2)
        assert stack.redis.ttl(job.key) == -1  # started jobs must not expire in the queue
    assert [job.id for job in stack.take()[0]] == ["a", "c", "d", "e", "f"]


def test_suspects_are_sorted_by_crash_count(stack: Stack) -> None:
    stack.enqueue("a", "b", "c", "d")
    (a, b, c), _ = stack.take(3)
    assert put_back(stack.worker, stack.queue, [a, b, c], dying=True) == [True] * 3
    assert stack.waiting() == ["a", "b", "c", "d"]
    ((alone,), _) = stack.take()
    assert alone.id == "a"
    job = DetectionJob.fetch("a", stack.redis, JSONSerializer)
    stack.redis.zrem("rq:wip:gamma", alone.name)
    with stack.redis.pipeline() as pipeline:
        job.abandon()
        job.retry(stack.queue, pipeline)
        pipeline.execute()
    assert stack.waiting() == ["b", "c", "a", "d"]
    assert stack.redis.hmget("rq:job:a", "retries_left", "deaths") == [b"2", b"2"]
    assert [stack.take()[0][0].id for _ in "bca"] == ["b", "c", "a"]


def test_job_that_crashed_too_many_workers_is_not_retried(stack: Stack) -> None:
    stack.enqueue("a")
    for _ in range(MAX_DEATHS + 1):
        taken = stack.take_one()
        taken.check()
        put_back(stack.worker, stack.queue, [taken], dying=True)
    with pytest.raises(DeadlyJobError):
        stack.take_one().check()
    assert stack.redis.hget("rq:job:a", "retries_left") == b"0"


def test_only_own_executions_get_heartbeats_and_finish_once(stack: Stack) -> None:
    stack.enqueue("a", "b")
    (own, lost), _ = stack.take()
    stack.redis.zrem("rq:wip:gamma", lost.name)
    stack.redis.delete(f"rq:execution:{lost.name}")
    stack.do(send_heartbeats, [own, lost])
    assert stack.redis.keys("rq:execution:*") == [f"rq:execution:{own.name}".encode()]
    assert stack.do(finish, [own, lost], ["succeeded", "succeeded"]) == [1, 0]
    assert stack.do(finish, [own, lost], ["succeeded", "succeeded"]) == [1, 0]  # repeated
    assert stack.redis.xlen("rq:results:a") == 1
    assert not stack.redis.exists("rq:results:b")
    assert stack.redis.hget("rq:worker:tester", "successful_job_count") == b"1"


def test_full_redis_refuses_take_and_finish_but_not_heartbeats(stack: Stack) -> None:
    stack.enqueue("a", "b")
    taken = stack.take_one()
    stack.redis.expire(f"rq:execution:{taken.name}", 1)
    stack.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            stack.take()
        with pytest.raises(OutOfMemoryError):
            stack.do(finish, [taken], ["succeeded"])
        stack.do(send_heartbeats, [taken])
        assert stack.redis.ttl(f"rq:execution:{taken.name}") > 1
        assert stack.waiting() == ["b"]
        assert put_back(stack.worker, stack.queue, [taken]) == [True]
    finally:
        stack.redis.config_set("maxmemory", 2**28)
    assert stack.waiting() == ["a", "b"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"[" * 4000,
        zlib.compress(b" " * 2**20),
        b'["os.system", null, ["a"], {}]',
        b'["gamma.detect", null, ["b"], {}]',
        b'["gamma.detect", null, ["a"], {"more": 1}]',
    ],
)
def test_foreign_payload_is_refused(stack: Stack, payload: bytes) -> None:
    stack.enqueue("a", data=payload)
    with pytest.raises(PayloadError):
        stack.take_one().check()


def test_payload_of_the_api_is_accepted(stack: Stack) -> None:
    stack.enqueue("a")
    stack.take_one().check()
