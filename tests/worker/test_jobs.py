"""What this worker's scripts leave in Redis is what RQ's own classes leave there."""

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
    Held,
    PayloadError,
    SuspendedError,
    finish,
    keep,
    put_back,
    take,
)
from worker.scripts import MOST_DEATHS, TAKE

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d{10}\.\d+|0\.\d+")
_TTLS = 5  # s; what two runs may differ by


class Stack:
    """A queue, and a stock worker to compare with."""

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

    def take_one(self) -> Held:
        ((held,), _) = self.take(1)
        return held

    def do(self, action: Callable[..., None], *arguments: Any) -> Any:
        with self.redis.pipeline() as pipeline:
            action(pipeline, self.queue, self.worker, *arguments)
            return pipeline.execute()[0]

    def waiting(self) -> list[str]:
        return [name.decode() for name in self.redis.lrange(self.queue.key, 0, -1)]

    def picture(self, execution: str) -> dict[str, tuple[Any, int]]:
        """Everything in Redis and how long it stays; without moments."""

        def general(value: bytes | str) -> str:
            text = value if isinstance(value, str) else value.decode("latin-1")
            text = text.replace(execution, "EXECUTION")
            return _MOMENT.sub("MOMENT", text)

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
            # The life of the worker's own keys hangs on its own heartbeat.
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


def test_what_is_taken_kept_and_finished_looks_as_with_rq(stack: Stack) -> None:
    worker, queue = stack.worker, stack.queue
    stack.enqueue("a")
    assert stack.redis.lpop(queue.key) == b"a"
    job = queue.fetch_job("a")
    worker.get_heartbeat_ttl = lambda *_: 35
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    begun = stack.picture(execution.id)
    worker._finalize_success(job, queue, execution, "succeeded")
    ended = stack.picture(execution.id)
    stack.redis.flushall()
    stack.enqueue("a")
    held = stack.take_one()
    worker.heartbeat()  # of the worker itself, told apart from its jobs' here
    assert stack.redis.delete("rq:worker:tester:taken") == 1
    assert stack.picture(held.execution) == begun
    stack.do(keep, [held])
    assert stack.picture(held.execution) == begun
    assert stack.do(finish, [held], ["succeeded"]) == [1]
    assert stack.picture(held.execution) == ended
    assert queue.fetch_job("a").return_value() == "succeeded"


def test_jobs_leave_in_their_order_and_expired_ones_are_dropped(stack: Stack) -> None:
    stack.enqueue("a", "b", "c", "d")
    stack.redis.delete("rq:job:b")
    held, alone = stack.take(2)
    assert [job.id for job in held] == ["a", "c"]
    assert not alone
    assert stack.waiting() == ["d"]
    assert stack.take(2, idle=False)[0][0].id == "d"
    assert stack.take() == ([], False)


def test_nothing_is_taken_while_workers_are_suspended(stack: Stack) -> None:
    stack.enqueue("a", "b")
    held = stack.take(1, token="before")[0][0]
    suspend(stack.redis)
    with pytest.raises(SuspendedError):
        stack.take()
    assert stack.take(1, token="before")[0][0].name == held.name  # an answer was lost
    resume(stack.redis)
    assert [job.id for job in stack.take()[0]] == ["b"]


def test_a_take_that_is_asked_for_again_tells_what_it_took(stack: Stack) -> None:
    stack.enqueue("a", "b", "c")
    first, _ = stack.take(2, token="first")
    again, _ = stack.take(2, token="first")
    assert [job.name for job in again] == [job.name for job in first]
    assert stack.waiting() == ["c"]
    assert StartedJobRegistry(queue=stack.queue).get_job_count(cleanup=False) == 2
    assert stack.take(2, token="second")[0][0].id == "c"


class Deaf(UnixDomainSocketConnection):
    """Loses its connection before it hears the answer to a take."""

    lost = 0

    def send_packed_command(self, command, check_health=True):
        super().send_packed_command(command, check_health)
        self.taking = TAKE.sha.encode() in b"".join(command)

    def read_response(self, *args, **kwargs):
        answer = super().read_response(*args, **kwargs)
        if self.taking and Deaf.lost < 2:
            Deaf.lost += 1
            self.disconnect()
            raise RedisConnectionError("lost")
        return answer


def test_what_was_taken_is_known_although_the_answer_was_lost(stack: Stack) -> None:
    stack.enqueue("a", "b", "c")
    path = stack.redis.connection_pool.connection_kwargs["path"]
    with connect(f"unix://{path}") as deaf:
        deaf.connection_pool.connection_class = Deaf
        stack.worker.connection = deaf
        held, _ = stack.take(2)
    assert Deaf.lost == 2
    assert [job.id for job in held] == ["a", "b"]
    assert stack.waiting() == ["c"]


def test_a_suspect_is_taken_alone(stack: Stack) -> None:
    stack.enqueue("a", "b")
    stack.enqueue("suspect", deaths=1)
    stack.enqueue("c")
    held, alone = stack.take()
    assert [job.id for job in held] == ["a", "b"]
    assert alone
    assert stack.take(idle=False) == ([], True)
    ((suspect,), alone) = stack.take(idle=True)
    assert suspect.id == "suspect"
    assert suspect.suspect
    assert not alone
    assert stack.waiting() == ["c"]


def test_what_is_put_back_has_its_old_place_and_its_tries(stack: Stack) -> None:
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
        assert stack.redis.ttl(job.key) == -1  # it has begun, so it is not to expire in the queue
    assert [job.id for job in stack.take()[0]] == ["a", "c", "d", "e", "f"]


def test_suspects_stand_behind_those_that_fewer_workers_died_with(stack: Stack) -> None:
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


def test_a_job_that_too_many_workers_died_with_is_not_tried_again(stack: Stack) -> None:
    stack.enqueue("a")
    for _ in range(MOST_DEATHS + 1):
        held = stack.take_one()
        held.check()
        put_back(stack.worker, stack.queue, [held], dying=True)
    with pytest.raises(DeadlyJobError):
        stack.take_one().check()
    assert stack.redis.hget("rq:job:a", "retries_left") == b"0"


def test_only_an_execution_that_is_ours_is_kept_and_finished_once(stack: Stack) -> None:
    stack.enqueue("a", "b")
    (ours, lost), _ = stack.take()
    stack.redis.zrem("rq:wip:gamma", lost.name)
    stack.redis.delete(f"rq:execution:{lost.name}")
    stack.do(keep, [ours, lost])
    assert stack.redis.keys("rq:execution:*") == [f"rq:execution:{ours.name}".encode()]
    assert stack.do(finish, [ours, lost], ["succeeded", "succeeded"]) == [1, 0]
    assert stack.do(finish, [ours, lost], ["succeeded", "succeeded"]) == [1, 0]  # sent again
    assert stack.redis.xlen("rq:results:a") == 1
    assert not stack.redis.exists("rq:results:b")
    assert stack.redis.hget("rq:worker:tester", "successful_job_count") == b"1"


def test_a_full_redis_refuses_a_take_whole_and_still_keeps_what_is_held(stack: Stack) -> None:
    stack.enqueue("a", "b")
    held = stack.take_one()
    stack.redis.expire(f"rq:execution:{held.name}", 1)
    stack.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            stack.take()
        with pytest.raises(OutOfMemoryError):
            stack.do(finish, [held], ["succeeded"])
        stack.do(keep, [held])
        assert stack.redis.ttl(f"rq:execution:{held.name}") > 1
        assert stack.waiting() == ["b"]
        assert put_back(stack.worker, stack.queue, [held]) == [True]
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
def test_a_payload_that_is_not_ours_is_refused(stack: Stack, payload: bytes) -> None:
    stack.enqueue("a", data=payload)
    with pytest.raises(PayloadError):
        stack.take_one().check()


def test_our_own_payload_is_accepted(stack: Stack) -> None:
    stack.enqueue("a")
    stack.take_one().check()
