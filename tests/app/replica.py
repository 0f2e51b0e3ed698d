"""API processes without a worker, so that detections stay queued."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.conftest import free_port
from tests.forks import Forked, Light, without_settings

_START_TIMEOUT = 200  # s


class Replica:
    """A real `gamma api`."""

    def __init__(self, redis_url: str, log: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_port = free_port()
        self._log = log
        own = {
            "GAMMA_REDIS_URL": redis_url,
            "GAMMA_PORT": str(self.port),
            "GAMMA_METRICS_PORT": str(self.metrics_port),
            "GAMMA_LOG_FORMAT": "json",
            "GAMMA_DATA_DIR": str(log.parent / "data"),
        }
        complete = {**without_settings(), **own, **environment}
        log.write_text("")
        self.process = Forked(["api"], complete, log, log, kind=Light)

    def wait_until_alive(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            assert self.process.poll() is None, self.log()
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/livez", verify=False).status_code == 200:
                    return
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def client(self, key: str | None = None) -> httpx2.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # Loading the certificates of authorities, which HTTP does not use, takes 40 ms.
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60, verify=False)

    def raw(self, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str]]:
        """Send raw lines and body; returns status and header fields."""
        request = "\r\n".join([*lines, f"Host: 127.0.0.1:{self.port}", "", ""]).encode("latin-1")
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request + body)
            with connection.makefile("rb") as answer:
                status = int(answer.readline().split()[1])
                fields = {}
                while line := answer.readline().strip():
                    name, _, value = line.decode().partition(":")
                    fields[name.lower()] = value.strip()
        return status, fields

    def hang_up_after(self, request: bytes) -> None:
        """Send these bytes, then close the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        return httpx2.get(url, timeout=60, verify=False).text

    def log(self) -> str:
        return self._log.read_text()

    def unexpected_errors(self) -> list[str]:
        """Log lines of errors that the API has no answer for; its log must show requests."""
        lines = self.log().splitlines()
        assert any('"event": "request' in line for line in lines), self.log()
        return [line for line in lines if "unexpected_error" in line]

    def lines_of(self, request_id: str) -> list[dict]:
        """Log lines of a request, once its last one is written."""
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            lines = [json.loads(line) for line in self.log().splitlines() if request_id in line]
            if any(line["event"] == "request" for line in lines):
                return lines
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)


@contextlib.contextmanager
def replicas(
    redis_url: str, folder: Path, count: int, **environment: str
) -> Iterator[list[Replica]]:
    """Several replicas behind one Redis, with the same settings."""
    running = [
        Replica(redis_url, folder / f"api-{number}.log", **environment) for number in range(count)
    ]
    try:
        for replica in running:
            replica.wait_until_alive()
        yield running
    finally:
        for replica in running:
            replica.process.terminate()
        for replica in running:
            replica.process.wait(60)


def assert_problem(answer: httpx2.Response, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["request_id"] == answer.headers["x-request-id"]
    return document
