"""A webhook receiver: an HTTP server with configurable responses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Answer = int | str
"""A status; or the location of a redirect."""


@dataclass(frozen=True)
class Arrival:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)


class Receiver:
    """Answers 200, or what `answers` holds for the path, one after the other (the last repeats).

    What comes to a path in `holds` waits for its event first.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.arrivals: list[Arrival] = []
        self.answers: dict[str, list[Answer]] = {}
        self.holds: dict[str, threading.Event] = {}
        self.server = ThreadingHTTPServer((address, 0), _handler(self))
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://{address}:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for held in self.holds.values():
            held.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def hold(self, path: str) -> threading.Event:
        return self.holds.setdefault(path, threading.Event())

    def at(self, path: str) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival.path == path]


def wait_for(condition: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.arrivals.append(Arrival(self.path, headers, body))
            if self.path in receiver.holds:
                receiver.holds[self.path].wait(60)
            answers = receiver.answers.get(self.path, [200])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            try:
                self.send_response(answer if isinstance(answer, int) else 302)
                if isinstance(answer, str):
                    self.send_header("Location", answer)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                self.close_connection = True  # the sender did not wait for the answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler
