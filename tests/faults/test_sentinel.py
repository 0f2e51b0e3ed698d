"""The master of a Redis with sentinels fails under load: nothing that was accepted is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.contract.client import connect
from tests.app.conftest import new_picture
from tests.app.replica import Replica, replicas
from tests.faults.sentinels import Sentinels, sentinels
from tests.faults.stack import Stack, opened

pytestmark = pytest.mark.slow

_REFUSED_FOR = 60.0  # s, at most; a failover that fails is repeated after 10 s


class Load:
    """Callers that upload without a pause, and what they were told."""

    def __init__(self, api: Replica, callers: int = 4) -> None:
        self.accepted: list[str] = []
        self.deleted: list[str] = []
        self.refused: list[float] = []  # when
        self.others: list[httpx2.Response] = []
        self._api = api
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._upload) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _upload(self) -> None:
        with self._api.client() as client:
            while not self._stopping.is_set():
                answer = client.post("/v1/detections", files={"file": new_picture()})
                if answer.status_code == 202:
                    self.accepted.append(answer.json()["id"])
                elif answer.status_code == 503 and "retry-after" in answer.headers:
                    self.refused.append(time.monotonic())
                    time.sleep(0.1)
                else:
                    self.others.append(answer)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Sentinels]:
    with sentinels(tmp_path / "group") as group:
        yield group


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_failover_loses_nothing_that_was_accepted(
    group: Sentinels, tmp_path: Path, how: signal.Signals
) -> None:
    with replicas(group.url, tmp_path, 1) as (api,), opened(group.url, tmp_path) as stack:
        stack.worker()
        load = Load(api)
        try:
            stack.wait(lambda: len(load.accepted) >= 50)
            old = group.master()
            os.kill(group.processes[old].pid, how)
            stack.wait(lambda: group.master() != old)
            before = len(load.accepted)
            stack.wait(lambda: len(load.accepted) >= before + 50)
        finally:
            load.stop()
        assert not load.others, load.others[0].text
        refused_for = max(load.refused, default=0) - min(load.refused, default=0)
        print(f"\n{how.name}: {len(load.accepted)} accepted, refused for {refused_for:.1f} s")
        assert refused_for <= _REFUSED_FOR
        finish(stack, load)


def finish(stack: Stack, load: Load) -> None:
    """Wait until all that was accepted is done."""
    stack.wait(lambda: all(stack.store.get(name) is not None for name in load.accepted))
    stack.wait_until_final(load.accepted)
    assert set(stack.statuses(load.accepted)) == {"succeeded"}


def test_without_a_replica_uploads_are_refused(group: Sentinels, tmp_path: Path) -> None:
    master = group.master()
    with replicas(group.url, tmp_path, 1) as (api,), api.client() as client:
        upload = lambda: client.post("/v1/detections", files={"file": new_picture()})  # noqa: E731
        assert upload().status_code == 202
        for port, process in group.processes.items():
            if port != master and port not in group.ports:
                process.send_signal(signal.SIGSTOP)
        answer = upload()
        assert answer.status_code == 503
        assert answer.json()["code"] == "redis_unavailable"
        with connect(group.url, retries=0) as redis:
            assert redis.ping()  # it answers, but nobody would have a copy
