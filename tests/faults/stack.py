"""Redis, worker processes, and checks of the outcome of every detection."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from PIL import Image
from redis.exceptions import RedisError
from rq import Queue
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from app.contract.client import connect
from app.contract.jobs import JobQueue
from app.contract.schemas import Detection, Status
from app.contract.settings import Settings
from app.contract.store import FINISHED_CHANNEL, Store
from app.contract.submission import Submission
from app.http.service import Service
from app.http.waiting import FinishedEvents
from pictures.findings import View
from tests.conftest import encode
from tests.faults.worker import CRASHING_COLOUR, FAILING_COLOUR, WorkerOptions, run
from tests.forks import FORKS

GOOD = encode(Image.new("RGB", (32, 32), (10, 200, 30)), "PNG")
FAILING = encode(Image.new("RGB", (32, 32), FAILING_COLOUR), "PNG")
CRASHING = encode(Image.new("RGB", (32, 32), CRASHING_COLOUR), "PNG")
LARGE = encode(Image.new("RGB", (220, 220), (10, 20, 230)), "PNG")  # 8 x 8 tiles

OWNER = "owner"

LIMIT = 240.0  # s; timeout of every wait, generous for a slow machine
SHOWN = 40  # lines of the workers' log shown if a test fails


class Stack:
    """Redis with the API's side of the queue, and workers; pictures in Redis or in a bucket."""

    def __init__(self, url: str, folder: Path, store: str | None = None) -> None:
        self.url = url
        self.folder = folder
        # No cache, since the same pictures are submitted repeatedly.
        settings = Settings(redis_url=url, cache=False, store=store)
        self.redis = connect(url, retries=100)
        self.store = Store.open(self.redis, settings)
        self.jobs = JobQueue(self.redis, settings)
        self.queue = Queue(settings.queue, connection=self.redis, serializer=JSONSerializer)
        self.service = Service(settings, self.store, self.jobs, FinishedEvents(url))
        self.workers: dict[str, BaseProcess] = {}
        self.finished: list[str] = []
        """Ids in the order of the published final records."""
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def submit(self, *pictures: bytes, view: View = View.CENTER) -> list[str]:
        orders = [Submission(OWNER, picture, view) for picture in pictures]
        return [self.service.submit(order).id for order in orders]

    def worker(self, **options: object) -> WorkerOptions:
        """Start a worker."""
        complete = WorkerOptions(self.url, log=str(self.folder / "workers.log"), **options)
        process = FORKS.Process(target=run, args=(complete,), name=complete.name)
        process.start()
        self.workers[complete.name] = process
        return complete

    def process(self, options: WorkerOptions) -> BaseProcess:
        return self.workers[options.name]

    def end(self, options: WorkerOptions, *, terminate: bool = True) -> int | None:
        """Wait for a worker to end, by default after SIGTERM; returns its exit code."""
        process = self.process(options)
        if terminate:
            process.terminate()
        process.join(LIMIT)
        return process.exitcode

    def record(self, name: str) -> Detection:
        detection = self.store.get(name)
        assert detection is not None
        return detection

    def statuses(self, names: Sequence[str]) -> Counter[str]:
        return Counter(self.record(name).status.value for name in names)

    def wait_until_final(self, names: Sequence[str], timeout: float = LIMIT) -> None:
        waiting = set(names)

        def done() -> bool:
            waiting.difference_update(n for n in list(waiting) if self.record(n).status.finished)
            return not waiting

        self.wait(done, timeout)

    def wait(self, condition: Callable[[], object], timeout: float = LIMIT) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.end_of_log()
            time.sleep(0.05)

    def count(self, options: WorkerOptions, kind: str = "successful") -> int:
        """Number of jobs a worker has finished, as counted by RQ."""
        return int(self.redis.hget(f"rq:worker:{options.name}", f"{kind}_job_count") or 0)

    def results(self, names: Sequence[str]) -> Counter[int]:
        """Number of results RQ keeps per job, as a histogram."""
        return Counter(self.redis.xlen(f"rq:results:{name}") for name in names)

    def retries_left(self, names: Sequence[str]) -> set[int]:
        return {int(self.redis.hget(f"rq:job:{name}", "retries_left")) for name in names}

    def abandon_all(self) -> None:
        """Make all started jobs count as abandoned."""
        registry = StartedJobRegistry(queue=self.queue).key
        for name in self.redis.zrange(registry, 0, -1):
            self.redis.zadd(registry, {name: time.time() - 1})

    def started(self) -> int:
        return StartedJobRegistry(queue=self.queue).get_job_count(cleanup=False)

    def failed(self) -> int:
        return FailedJobRegistry(queue=self.queue).get_job_count(cleanup=False)

    def assert_outcome(self, title: str, names: Sequence[str], **expected: int) -> None:
        """Check the final statuses, that each was set once, and that the queue is empty."""
        statuses = self.statuses(names)
        times_final = Counter(Counter(self.finished)[name] for name in names)
        print(f"\n{title}: {dict(statuses)}; times final: {dict(times_final)}")
        assert statuses == {Status(status).value: n for status, n in expected.items()}, (
            self.end_of_log()
        )
        assert set(times_final) == {1}, times_final
        self.assert_queue_empty()

    def assert_queue_empty(self) -> None:
        assert self.redis.llen(self.queue.key) == 0
        assert self.redis.llen(self.queue.intermediate_queue_key) == 0
        assert self.started() == 0

    def log(self) -> str:
        path = self.folder / "workers.log"
        return path.read_text() if path.exists() else ""

    def end_of_log(self) -> str:
        return "\n".join(self.log().splitlines()[-SHOWN:])

    def close(self) -> None:
        for process in self.workers.values():
            process.kill()
            process.join()
            process.close()
        self._closing.set()
        self._listener.join()
        self.redis.close()

    def _listen(self) -> None:
        with connect(self.url) as redis, redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(FINISHED_CHANNEL)
            while not self._closing.is_set():
                with contextlib.suppress(RedisError):
                    message = channel.get_message(timeout=0.1)
                    if message is not None:
                        self.finished.append(message["data"].decode().partition(" ")[0])


@contextlib.contextmanager
def opened(url: str, folder: Path, store: str | None = None) -> Iterator[Stack]:
    stack = Stack(url, folder, store)
    try:
        yield stack
    finally:
        stack.close()
