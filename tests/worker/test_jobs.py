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
from app.contract.jobs import JobQueue
from app.contract.settings import Settings
from app.contract.store import connect
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


class House:
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
def house(redis: Redis) -> House:
    redis.flushall()
    return House(redis)


def test_what_is_taken_kept_and_finished_looks_as_with_rq(house: House) -> None:
    worker, queue = house.worker, house.queue
    house.enqueue("a")
    assert house.redis.lpop(queue.key) == b"a"
    job = queue.fetch_job("a")
    worker.get_heartbeat_ttl = lambda *_: 35
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    begun = house.picture(execution.id)
    worker._finalize_success(job, queue, execution, "succeeded")
    ended = house.picture(execution.id)
    house.redis.flushall()
    house.enqueue("a")
    held = house.take_one()
    worker.heartbeat()  # of the worker itself, told apart from its jobs' here
    assert house.redis.delete("rq:worker:tester:taken") == 1
    assert house.picture(held.execution) == begun
    house.do(keep, [held])
    assert house.picture(held.execution) == begun
    assert house.do(finish, [held], ["succeeded"]) == [1]
    assert house.picture(held.execution) == ended
    assert queue.fetch_job("a").return_value() == "succeeded"


def test_jobs_leave_in_their_order_and_expired_ones_are_dropped(house: House) -> None:
    house.enqueue("a", "b", "c", "d")
    house.redis.delete("rq:job:b")
    held, alone = house.take(2)
    assert [job.id for job in held] == ["a", "c"]
    assert not alone
    assert house.waiting() == ["d"]
    assert house.take(2, idle=False)[0][0].id == "d"
    assert house.take() == ([], False)


def test_nothing_is_taken_while_workers_are_suspended(house: House) -> None:
    house.enqueue("a", "b")
    held = house.take(1, token="before")[0][0]
    suspend(house.redis)
    with pytest.raises(SuspendedError):
        house.take()
    assert house.take(1, token="before")[0][0].name == held.name  # an answer was lost
    resume(house.redis)
    assert [job.id for job in house.take()[0]] == ["b"]


def test_a_take_that_is_asked_for_again_tells_what_it_took(house: House) -> None:
    house.enqueue("a", "b", "c")
    first, _ = house.take(2, token="first")
    again, _ = house.take(2, token="first")
    assert [job.name for job in again] == [job.name for job in first]
    assert house.waiting() == ["c"]
    assert StartedJobRegistry(queue=house.queue).get_job_count(cleanup=False) == 2
    assert house.take(2, token="second")[0][0].id == "c"


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


def test_what_was_taken_is_known_although_the_answer_was_lost(house: House) -> None:
    house.enqueue("a", "b", "c")
    path = house.redis.connection_pool.connection_kwargs["path"]
    with connect(f"unix://{path}") as deaf:
        deaf.connection_pool.connection_class = Deaf
        house.worker.connection = deaf
        held, _ = house.take(2)
    assert Deaf.lost == 2
    assert [job.id for job in held] == ["a", "b"]
    assert house.waiting() == ["c"]


def test_a_suspect_is_taken_alone(house: House) -> None:
    house.enqueue("a", "b")
    house.enqueue("suspect", deaths=1)
    house.enqueue("c")
    held, alone = house.take()
    assert [job.id for job in held] == ["a", "b"]
    assert alone
    assert house.take(idle=False) == ([], True)
    ((suspect,), alone) = house.take(idle=True)
    assert suspect.id == "suspect"
    assert suspect.suspect
    assert not alone
    assert house.waiting() == ["c"]


def test_what_is_put_back_has_its_old_place_and_its_tries(house: House) -> None:
    house.enqueue("a", "b", "c", "d", "e")
    (a, b, c, d), _ = house.take(4)
    house.redis.zrem("rq:wip:gamma", b.name)  # another worker has it
    house.enqueue("f")
    assert put_back(house.worker, house.queue, [d]) == [True]
    assert put_back(house.worker, house.queue, [c, b, a]) == [True, False, True]
    assert put_back(house.worker, house.queue, [a]) == [False]
    assert house.waiting() == ["a", "c", "d", "e", "f"]
    assert house.redis.keys("rq:execution:[^b]*") == house.redis.keys("rq:wip:*") == []
    for name in "acd":
        job = house.queue.fetch_job(name)
        assert (job.get_status(), job.retries_left) == ("queued", 2)
        assert house.redis.ttl(job.key) == -1  # it has begun, so it is not to expire in the queue
    assert [job.id for job in house.take()[0]] == ["a", "c", "d", "e", "f"]


def test_suspects_stand_behind_those_that_fewer_workers_died_with(house: House) -> None:
    house.enqueue("a", "b", "c", "d")
    (a, b, c), _ = house.take(3)
    assert put_back(house.worker, house.queue, [a, b, c], dying=True) == [True] * 3
    assert house.waiting() == ["a", "b", "c", "d"]
    ((alone,), _) = house.take()
    assert alone.id == "a"
    job = DetectionJob.fetch("a", house.redis, JSONSerializer)
    house.redis.zrem("rq:wip:gamma", alone.name)
    with house.redis.pipeline() as pipeline:
        job.abandon()
        job.retry(house.queue, pipeline)
        pipeline.execute()
    assert house.waiting() == ["b", "c", "a", "d"]
    assert house.redis.hmget("rq:job:a", "retries_left", "deaths") == [b"2", b"2"]
    assert [house.take()[0][0].id for _ in "bca"] == ["b", "c", "a"]


def test_a_job_that_too_many_workers_died_with_is_not_tried_again(house: House) -> None:
    house.enqueue("a")
    for _ in range(MOST_DEATHS + 1):
        held = house.take_one()
        held.check()
        put_back(house.worker, house.queue, [held], dying=True)
    with pytest.raises(DeadlyJobError):
        house.take_one().check()
    assert house.redis.hget("rq:job:a", "retries_left") == b"0"


def test_only_an_execution_that_is_ours_is_kept_and_finished_once(house: House) -> None:
    house.enqueue("a", "b")
    (ours, lost), _ = house.take()
    house.redis.zrem("rq:wip:gamma", lost.name)
    house.redis.delete(f"rq:execution:{lost.name}")
    house.do(keep, [ours, lost])
    assert house.redis.keys("rq:execution:*") == [f"rq:execution:{ours.name}".encode()]
    assert house.do(finish, [ours, lost], ["succeeded", "succeeded"]) == [1, 0]
    assert house.do(finish, [ours, lost], ["succeeded", "succeeded"]) == [1, 0]  # sent again
    assert house.redis.xlen("rq:results:a") == 1
    assert not house.redis.exists("rq:results:b")
    assert house.redis.hget("rq:worker:tester", "successful_job_count") == b"1"


def test_a_full_redis_refuses_a_take_whole_and_still_keeps_what_is_held(house: House) -> None:
    house.enqueue("a", "b")
    held = house.take_one()
    house.redis.expire(f"rq:execution:{held.name}", 1)
    house.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            house.take()
        with pytest.raises(OutOfMemoryError):
            house.do(finish, [held], ["succeeded"])
        house.do(keep, [held])
        assert house.redis.ttl(f"rq:execution:{held.name}") > 1
        assert house.waiting() == ["b"]
        assert put_back(house.worker, house.queue, [held]) == [True]
    finally:
        house.redis.config_set("maxmemory", 2**28)
    assert house.waiting() == ["a", "b"]


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
def test_a_payload_that_is_not_ours_is_refused(house: House, payload: bytes) -> None:
    house.enqueue("a", data=payload)
    with pytest.raises(PayloadError):
        house.take_one().check()


def test_our_own_payload_is_accepted(house: House) -> None:
    house.enqueue("a")
    house.take_one().check()
