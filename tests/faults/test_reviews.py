"""No acknowledged decision is lost, and an outage of the database affects reviews only."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from app.contract.client import connect
from tests.app.conftest import StandIn, post, wait_for
from tests.app.replica import Replica, assert_problem
from tests.conftest import value
from tests.postgres import Postgres

KEY = "the-key-of-anna-111"
WITHIN = 20.0  # s, in which a request must be answered; less than 3 s on an idle machine


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with contextlib.closing(Postgres()) as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Postgres]:
    """The server, which runs again after the test."""
    yield postgres
    postgres.ensure_running()


def start(redis_url: str, folder: Path, **environment: str) -> Replica:
    replica = Replica(redis_url, folder / "log", GAMMA_API_KEYS=f"anna={KEY}", **environment)
    replica.wait_until_alive()
    return replica


def stop(replica: Replica) -> None:
    replica.process.terminate()
    replica.process.wait(60)


@pytest.fixture
def api(redis_url: str, tmp_path: Path, database: Postgres) -> Iterator[Replica]:
    url = database.new_database("reviews")
    replica = start(redis_url, tmp_path, GAMMA_DATABASE_URL=url)
    try:
        yield replica
    finally:
        stop(replica)


def finished(client: httpx2.Client, redis_url: str) -> str:
    with connect(redis_url) as redis:
        name: str = post(client).json()["id"]
        assert StandIn(redis).finish(name)
        return name


def _path(name: str) -> str:
    return f"/v1/detections/{name}/review"


def decide(
    client: httpx2.Client, name: str, note: str = "", headers: dict[str, str] | None = None
) -> httpx2.Response:
    body = {"decision": "ai", "note": note}
    return client.post(_path(name), json=body, headers=headers)


def notes(client: httpx2.Client, name: str) -> set[str]:
    history = client.get(_path(name)).json()["history"]
    found = [one["note"] for one in history]
    assert len(found) == len(set(found)), "a decision was stored twice"
    return set(found)


class Reviewer:
    """Decides again and again in a thread; knows which decisions were acknowledged.

    A request without an answer is repeated with the same `If-Match`. If that is refused, the
    history shows whether the first one was stored.
    """

    def __init__(self, url: Callable[[], str], name: str, label: str) -> None:
        self.acknowledged: set[str] = set()
        self._url, self._name, self._label = url, name, label
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reviewer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self) -> None:
        """Wait until some more decisions are acknowledged."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before + 5)

    def _run(self) -> None:
        for number in itertools.count():
            note = f"{self._label} {number}"
            while not self._stored(note):
                if self._stop.is_set():
                    return
            self.acknowledged.add(note)
            if self._stop.is_set():
                return

    def _stored(self, note: str) -> bool:
        tag = self._ask(lambda client: client.get(_path(self._name))).headers["etag"]
        answer = self._ask(lambda client: decide(client, self._name, note, {"If-Match": tag}))
        if answer.is_success:
            return True
        assert_problem(answer, 412, "review_conflict")
        history = self._ask(lambda client: client.get(_path(self._name))).json()["history"]
        return note in [one["note"] for one in history]

    def _ask(self, send: Callable[[httpx2.Client], httpx2.Response]) -> httpx2.Response:
        """Repeat a request until the service answers it."""
        headers = {"Authorization": f"Bearer {KEY}"}
        while True:
            with (
                contextlib.suppress(httpx2.TransportError),
                httpx2.Client(
                    base_url=self._url(), headers=headers, timeout=60, verify=False
                ) as client,
            ):
                answer = send(client)
                if answer.status_code != 503:
                    return answer
            time.sleep(0.02)


def test_killed_api_loses_no_acknowledged_decision(redis_url: str, tmp_path: Path) -> None:
    """With SQLite, whose file a second process shares."""
    running = [start(redis_url, tmp_path)]
    try:
        with running[0].client(KEY) as client:
            name = finished(client, redis_url)
        with (
            Reviewer(lambda: running[0].url, name, "a") as first,
            Reviewer(lambda: running[0].url, name, "b") as second,
        ):
            first.wait_for_more()
            running[0].process.kill()
            running[0].process.wait()
            running[0] = start(redis_url, tmp_path)
            second.wait_for_more()
        with running[0].client(KEY) as client:
            assert notes(client, name) >= first.acknowledged | second.acknowledged
    finally:
        stop(running[0])


def test_killed_database_loses_no_acknowledged_decision(
    api: Replica, database: Postgres, redis_url: str
) -> None:
    with api.client(KEY) as client:
        name = finished(client, redis_url)
        with (
            Reviewer(lambda: api.url, name, "a") as first,
            Reviewer(lambda: api.url, name, "b") as second,
        ):
            for _ in range(2):
                first.wait_for_more()
                database.kill()
                database.start()
            second.wait_for_more()
        assert notes(client, name) >= first.acknowledged | second.acknowledged


@pytest.mark.parametrize("outage", ["dead", "frozen"])
def test_outage_affects_reviews_only_and_ends_by_itself(
    api: Replica, database: Postgres, redis_url: str, outage: str
) -> None:
    with api.client(KEY) as client:
        name = finished(client, redis_url)
        assert decide(client, name, "before").status_code == 201
        database.kill() if outage == "dead" else database.send(signal.SIGSTOP)
        record = f"/v1/detections/{name}"
        answers: list[tuple[httpx2.Response, float]] = []
        asking = [threading.Thread(target=_timed, args=(api, name, answers)) for _ in range(12)]
        for thread in asking:
            thread.start()
        while any(thread.is_alive() for thread in asking):
            began = time.monotonic()
            assert client.get(record).status_code == 200
            assert post(client).status_code == 202
            assert client.get("/livez").status_code == 200
            assert time.monotonic() - began < WITHIN
        for thread in asking:
            thread.join()
        assert len(answers) == 12
        for answer, seconds in answers:
            assert_problem(answer, 503, "reviews_unavailable")
            assert answer.headers["retry-after"] == "5"
            assert seconds < WITHIN
        assert client.delete(f"{record}?purge=true").status_code == 503
        assert client.get(record).status_code == 200, "nothing is deleted, so it can be repeated"
        ready = client.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert value(api.metrics(), "gamma_reviews_database_up") == 0
        assert value(api.metrics(), "gamma_reviews_database_errors_total") >= 12
        database.start() if outage == "dead" else database.send(signal.SIGCONT)
        wait_for(lambda: decide(client, name, "after").is_success)
        assert notes(client, name) >= {"before", "after"}
        assert value(api.metrics(), "gamma_reviews_database_up") == 1
    assert not api.unexpected_errors()


def _timed(api: Replica, name: str, answers: list[tuple[httpx2.Response, float]]) -> None:
    with api.client(KEY) as client:
        began = time.monotonic()
        answer = decide(client, name, "meanwhile")
        answers.append((answer, time.monotonic() - began))


def test_api_starts_without_its_database(
    redis_url: str, tmp_path: Path, database: Postgres
) -> None:
    database.kill()
    password = "the-password-of-the-database"
    url = database.url.replace("gamma@", f"gamma:{password}@")
    replica = start(redis_url, tmp_path, GAMMA_DATABASE_URL=url)
    try:
        with replica.client(KEY) as client:
            name = finished(client, redis_url)
            assert_problem(decide(client, name), 503, "reviews_unavailable")
            database.start()
            wait_for(lambda: decide(client, name).is_success)
        assert '"reviews_unavailable"' in replica.log()
        assert password not in replica.log()
    finally:
        stop(replica)
