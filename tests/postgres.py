"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

from tests.conftest import require_program
from tests.ports import free_port

_START_TIMEOUT = 200  # s
_PROGRAMS = "/usr/lib/postgresql/*/bin"  # where Debian has them, which is not in PATH


class Postgres:
    """A server on loopback, with its files in a temporary folder.

    PostgreSQL refuses to run as root, so the user `nobody` runs it then.
    """

    def __init__(self) -> None:
        folders = os.pathsep.join(sorted(glob.glob(_PROGRAMS), reverse=True))
        with _path(folders):
            initdb, self._program = require_program("initdb"), require_program("postgres")
        self._folder = Path(tempfile.mkdtemp(prefix="gamma-postgres-"))
        self._as: dict[str, int] = {}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        self.port = free_port()
        self.url = f"postgresql://gamma@127.0.0.1:{self.port}/postgres"
        options = ["-U", "gamma", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(
            [initdb, "-D", str(self._folder / "data"), *options],
            **self._as,
            check=True,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "max_connections": "50",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-D", str(self._folder / "data"), *words],
                **self._as,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url):
                return
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def new_database(self, name: str) -> str:
        """Create an empty database; returns its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"{self.url.rpartition('/')[0]}/{name}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server and the processes of its connections."""
        server = psutil.Process(self._process.pid)
        for process in (server, *server.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """End all processes of the server at once, as a power failure does."""
        self.send(signal.SIGKILL)
        self._process.wait(30)

    def ensure_running(self) -> None:
        """Start or continue the server if a test has stopped it."""
        if self._process.poll() is None:
            self.send(signal.SIGCONT)
        else:
            self.start()

    def close(self) -> None:
        """Stop the server and remove its files."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # fast shutdown
            self._process.wait(30)
        shutil.rmtree(self._folder)


@contextlib.contextmanager
def _path(folders: str):
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{before}{os.pathsep}{folders}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
