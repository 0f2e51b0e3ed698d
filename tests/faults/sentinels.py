"""A master, two replicas and three sentinels, as real processes."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from app.command.embedded import server_binary
from tests.conftest import free_port

PASSWORD = "0f1e2d3c"
_LIMIT = 60.0  # s


class Sentinels:
    """Three servers, of which one is the master, and three sentinels that watch it."""

    name = "main"

    def __init__(self, folder: Path, down_after: int = 1000) -> None:
        """Start all.

        Args:
            folder: of their files.
            down_after: milliseconds without an answer after which a server counts as failed.
        """
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._folder = folder
        first, *others = [free_port() for _ in range(3)]
        common = (
            f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\nappendonly yes\n"
            "maxmemory-policy noeviction\nmaxmemory 256mb\nrepl-diskless-sync-delay 0\n"
            "min-replicas-to-write 1\nmin-replicas-max-lag 5\nrepl-timeout 10\n"
        )
        self._start(first, common)
        for port in others:
            self._start(port, f"{common}replicaof 127.0.0.1 {first}\n")
        self.redis = {port: Redis(port=port, password=PASSWORD) for port in (first, *others)}
        self._wait(lambda: self.redis[first].info("replication")["connected_slaves"] == 2)
        self.ports = [free_port() for _ in range(3)]
        for port in self.ports:
            watched = (
                f"sentinel monitor {self.name} 127.0.0.1 {first} 2\n"
                f"sentinel auth-pass {self.name} {PASSWORD}\n"
                f"sentinel down-after-milliseconds {self.name} {down_after}\n"
                f"sentinel failover-timeout {self.name} 5000\n"
            )
            self._start(port, watched, "--sentinel")
            self._wait(lambda: self._shorten_periods(port))  # noqa: B023 - now
        self._wait(lambda: all(map(self._knows_all, self.ports)))

    def _shorten_periods(self, port: int) -> bool:
        """Let a sentinel ask and tell the others more often than every few seconds."""
        periods = ("info-period", 500, "publish-period", 200, "ask-period", 200)
        with Redis(port=port) as sentinel:
            return bool(sentinel.execute_command("SENTINEL", "DEBUG", *periods))

    def _knows_all(self, port: int) -> bool:
        """Whether a sentinel knows the two others and the two replicas."""
        with Redis(port=port) as sentinel:
            found = sentinel.sentinel_masters()[self.name]
        return bool(found["num-other-sentinels"] == found["num-slaves"] == 2)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{self.name}/0"

    def master(self) -> int:
        """Port of the server that the sentinels name."""
        with Redis(port=self.ports[0]) as sentinel:
            return int(sentinel.sentinel_masters()[self.name]["port"])

    def close(self) -> None:
        for client in self.redis.values():
            client.close()
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _start(self, port: int, configuration: str, *arguments: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir(parents=True)
        file = folder / "redis.conf"
        file.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n{configuration}")
        with (folder / "log").open("w") as log:
            self.processes[port] = subprocess.Popen(
                [server_binary(), file, *arguments], stdout=log, stderr=subprocess.STDOUT
            )

    def _wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _LIMIT
        while True:
            with contextlib.suppress(RedisError, KeyError):
                if condition():
                    return
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextlib.contextmanager
def sentinels(folder: Path) -> Iterator[Sentinels]:
    running = Sentinels(folder)
    try:
        yield running
    finally:
        running.close()
