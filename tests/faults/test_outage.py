"""Redis hangs or dies: requests are answered within a time limit and work again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.command.embedded import private_redis
from app.contract.client import connect
from app.http import guard
from app.http.guard import GuardedClient, connect_guarded
from tests.app.conftest import StandIn, new_picture
from tests.app.replica import Replica, assert_problem, replicas

_WITHIN = 20.0  # s, of every request: about 2 s on an idle machine, endless without a limit
_AT_ONCE = 0.9 * guard.BUDGET  # s; some milliseconds on an idle machine
_RECOVERED_WITHIN = 60.0  # s


class Frozen:
    """An API whose Redis can be frozen, and a finished detection."""

    def __init__(self, api: Replica, pid: int, finished: str) -> None:
        self.api = api
        self.finished = finished
        self._pid = pid
        limits = httpx2.Limits(max_connections=None)
        self.client = httpx2.Client(base_url=api.url, timeout=120, limits=limits)

    def close(self) -> None:
        self.client.close()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)
            self.wait(lambda: self.request("GET", "/readyz")[0].status_code == 200)

    def request(self, method: str, path: str, **options: object) -> tuple[httpx2.Response, float]:
        """Send a request; returns the response and the seconds it took."""
        began = time.monotonic()
        answer = self.client.request(method, path, **options)
        return answer, time.monotonic() - began

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _RECOVERED_WITHIN
        while not condition():
            assert time.monotonic() < deadline, self.api.log()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    folder = tmp_path_factory.mktemp("frozen")
    with (
        private_redis(folder / "redis", 2**28) as (url, server),
        replicas(url, folder, 1) as (api,),
        connect(url) as redis,
    ):
        stand_in = StandIn(redis)
        files = {"file": new_picture()}
        name = httpx2.post(f"{api.url}/v1/detections", files=files, timeout=60).json()["id"]
        assert stand_in.finish(name)
        with contextlib.closing(Frozen(api, server.process.pid, name)) as stack:
            for method, path, options in _calls(name).values():  # the first of a kind is slower
                stack.request(method, path, **options)
            yield stack


def _calls(name: str) -> dict[str, tuple[str, str, dict[str, object]]]:
    batch = [("files", new_picture()) for _ in range(3)]
    one = f"/v1/detections/{name}"
    return {
        "submit": ("POST", "/v1/detections", {"files": {"file": new_picture()}}),
        "submit a batch": ("POST", "/v1/detections/batch", {"files": batch}),
        "get": ("GET", one, {}),
        "list": ("GET", "/v1/detections", {}),
        "mask": ("GET", f"{one}/masks/ai.png", {}),
        "overlay": ("GET", f"{one}/overlays/ai.png?composite=true", {}),
        "image": ("GET", f"{one}/image", {}),
        "delete": (
            "DELETE",
            f"/v1/detections/{'0' * 32}",
            {},
        ),  # Redis executes it after the freeze
        "usage": ("GET", "/v1/usage", {}),
        "model": ("GET", "/v1/model", {}),
    }


def test_first_requests_to_a_frozen_redis_time_out(stack: Frozen) -> None:
    calls = _calls(stack.finished)
    with stack.frozen(), ThreadPoolExecutor(len(calls)) as pool:
        waiting = {
            name: pool.submit(stack.request, method, path, **options)
            for name, (method, path, options) in calls.items()
        }
    for name, call in waiting.items():
        answer, seconds = call.result()
        assert_problem(answer, 503, "redis_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert seconds < _WITHIN, name
    assert stack.request("GET", f"/v1/detections/{stack.finished}")[0].status_code == 200


def test_open_circuit_answers_at_once(stack: Frozen) -> None:
    with stack.frozen():
        stack.request("GET", "/v1/detections")
        for method, path, options in _calls(stack.finished).values():
            answer, seconds = stack.request(method, path, **options)
            assert_problem(answer, 503, "redis_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert seconds < _AT_ONCE, (method, path)
    answer, _ = stack.request("POST", "/v1/detections", files={"file": new_picture()})
    assert answer.status_code == 202


def test_more_requests_than_threads(stack: Frozen) -> None:
    """Requests that wait for a thread do not wait for Redis in addition."""
    with stack.frozen(), ThreadPoolExecutor(100) as pool:
        calls = [pool.submit(stack.request, "GET", "/v1/detections") for _ in range(100)]
        answers = [call.result() for call in calls]
    assert {answer.status_code for answer, _ in answers} == {503}
    rounds = 3  # of the threads
    assert max(seconds for _, seconds in answers) < 0.9 * rounds * guard.BUDGET


def test_probes_of_a_frozen_redis(stack: Frozen) -> None:
    with stack.frozen(), ThreadPoolExecutor(60) as pool:
        calls = [pool.submit(stack.request, "GET", "/v1/detections") for _ in range(50)]
        ready, seconds = stack.request("GET", "/readyz")
        assert seconds < _WITHIN
        assert_problem(ready, 503, "redis_unavailable")
        alive, seconds = stack.request("GET", "/livez")
        assert seconds < _AT_ONCE
        assert alive.status_code == 200
        for call in calls:
            call.result()


def test_waiting_request_returns_the_last_known_record(stack: Frozen) -> None:
    answers: list[tuple[httpx2.Response, float]] = []

    def wait() -> None:
        files, headers = {"file": new_picture()}, {"Prefer": "wait=60"}
        answers.append(stack.request("POST", "/v1/detections", files=files, headers=headers))

    waiting = threading.Thread(target=wait)
    waiting.start()
    stack.wait(lambda: "gamma_http_requests_waiting 1.0" in stack.api.metrics())
    with stack.frozen():
        frozen = time.monotonic()
        waiting.join()
        seconds = time.monotonic() - frozen
    ((answer, _),) = answers
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert seconds < 2 * _WITHIN  # it polls every 2 s
    record, _ = stack.request("GET", answer.headers["location"])
    assert record.status_code == 200


def test_request_succeeds_after_a_short_freeze(stack: Frozen) -> None:
    """A freeze within the request's time budget only delays it."""
    files = {"file": new_picture()}
    with ThreadPoolExecutor(1) as pool:
        with stack.frozen():
            call = pool.submit(stack.request, "POST", "/v1/detections", files=files)
            time.sleep(0.5)
        answer, seconds = call.result()
    assert answer.status_code == 202
    assert seconds >= 0.5


def test_redis_dies_and_restarts(tmp_path: Path) -> None:
    data = tmp_path / "redis"
    with contextlib.ExitStack() as contexts:
        with private_redis(data, 2**26) as (url, server):
            (api,) = contexts.enter_context(replicas(url, tmp_path, 1))
            stack = contexts.enter_context(contextlib.closing(Frozen(api, server.process.pid, "")))
            server.process.kill()
            server.process.wait()
            answer, seconds = stack.request("GET", "/v1/detections")
            assert_problem(answer, 503, "redis_unavailable")
            assert seconds < _WITHIN
            assert stack.request("GET", "/v1/detections")[1] < _AT_ONCE
        with private_redis(data, 2**26):
            stack.wait(lambda: stack.request("GET", "/v1/detections")[0].status_code == 200)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[GuardedClient]:
    with private_redis(tmp_path / "redis", 2**28) as (url, server), connect_guarded(url) as client:
        client.ping()
        os.kill(server.process.pid, signal.SIGSTOP)
        yield client
        os.kill(server.process.pid, signal.SIGCONT)


def test_large_write_to_a_frozen_redis_times_out(client: GuardedClient) -> None:
    """Its size extends the timeout only while data is transferred."""
    began = time.monotonic()
    with pytest.raises(RedisTimeoutError):
        client.set("picture", bytes(50 * 2**20))
    assert 2 < time.monotonic() - began < _WITHIN


@contextlib.contextmanager
def slow_link(path: str, rate: int) -> Iterator[str]:
    """URL of a proxy to a Redis at a Unix socket, with `rate` bytes per second."""

    def carry(source: socket.socket, target: socket.socket, pause: float) -> None:
        due = time.monotonic()
        while data := source.recv(2**16):
            due += len(data) * pause
            time.sleep(max(0.0, due - time.monotonic()))  # a busy machine catches up
            target.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as far:
        far.connect(path)

        def serve() -> None:
            near, _ = listener.accept()
            with near:
                back = threading.Thread(target=carry, args=(far, near, 0.0))
                back.start()
                carry(near, far, 1 / rate)
                far.shutdown(socket.SHUT_RDWR)
                back.join()

        serving = threading.Thread(target=serve)
        serving.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        serving.join()


def test_large_write_on_a_slow_link_succeeds(tmp_path: Path) -> None:
    picture = bytes(20 * 2**20)  # 2.5 s, longer than Redis may take to answer
    with (
        private_redis(tmp_path / "redis", 2**28) as (url, _),
        slow_link(url.removeprefix("unix://"), rate=8 * 2**20) as slow,
        connect_guarded(slow) as client,
    ):
        client.set("picture", picture)
        with connect(url) as redis:
            assert redis.strlen("picture") == len(picture)
        assert client.ping(), "the circuit is closed"


def test_all_commands_of_a_request_share_its_budget(client: GuardedClient) -> None:
    async def request() -> float:
        budget = guard.begin(20)
        with budget.spending():
            await asyncio.sleep(0.3)
        assert budget.left <= 19.7
        budget.charge(19)
        began = time.monotonic()
        with pytest.raises(RedisTimeoutError):
            await asyncio.to_thread(client.get, "key")
        assert budget.left <= 0
        return time.monotonic() - began

    assert asyncio.run(request()) < 15
