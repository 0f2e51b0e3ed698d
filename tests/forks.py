"""Processes forked from one that has imported everything, which takes a new process seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, popen_forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from app.command import processes, supervisor
from app.command.cli import app

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["app.command.spans", "tests.faults.worker", "tests.forks", "worker.main"]
)


class _LightPopen(popen_forkserver.Popen):
    """Forks from a second server."""

    _server = forkserver.ForkServer()
    _server.set_forkserver_preload(
        ["app.command.spans", "app.http.server", "app.webhooks.worker", "tests.forks"]
    )

    def _launch(self, process: BaseProcess) -> None:
        connect = self._server.connect_to_new_process
        with mock.patch.object(forkserver, "connect_to_new_process", connect):
            super()._launch(process)


class Light(FORKS.Process):
    """A process forked from one that has imported the API but not torch."""

    @staticmethod
    def _Popen(process: BaseProcess) -> _LightPopen:
        return _LightPopen(process)


_LIMIT = 240  # s


class Forked:
    """A `gamma` command in such a process, with what is used of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *output: Path,
        cwd: Path | None = None,
        kind: type[BaseProcess] = FORKS.Process,
    ) -> None:
        """Start it.

        Args:
            arguments: Arguments of the command `gamma`.
            environment: Its complete environment.
            output: Files or pipes for its standard output and standard error. Without them it
                keeps those of the process that it is forked from.
            cwd: Working directory [default: that of this process].
            kind: Process class, which determines the process that it is forked from.
        """
        self._process = kind(
            target=_run, args=(tuple(arguments), dict(environment), output, cwd or Path.cwd())
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("gamma", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def without_settings() -> dict[str, str]:
    """The environment without `GAMMA_*`."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GAMMA_")}


def gamma(*arguments: str, cwd: Path | None = None, **environment: str) -> CompletedProcess[str]:
    """Run a `gamma` command in such a process, with these variables instead of other `GAMMA_*`."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = Forked(arguments, {**without_settings(), **environment}, *files, cwd=cwd)
        try:
            code = process.wait(_LIMIT)
        finally:
            process.kill()
        return CompletedProcess(arguments, code, *(file.read_text() for file in files))


def _run(
    arguments: tuple[str, ...], environment: dict[str, str], output: tuple[Path, ...], cwd: Path
) -> None:
    os.chdir(cwd)
    for descriptor, path in enumerate(output, 1):
        with path.open("a") as file:
            os.dup2(file.fileno(), descriptor)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    processes._die_with_parent()
    Path("/proc/self/comm").write_text(arguments[0])  # its name in a list of processes
    os.environ.clear()
    os.environ.update(environment)
    supervisor.start = _start_child
    app(arguments, prog_name="gamma")


def _start_child(command: list[str], environment: dict[str, str]) -> Forked:
    """A child of `gamma serve`, forked from it."""
    arguments = command[command.index("app") + 1 :]
    kind = multiprocessing.get_context("fork").Process
    return Forked(arguments, {**os.environ, **environment}, kind=kind)
