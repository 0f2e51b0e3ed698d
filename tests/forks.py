"""Processes forked from one that has imported torch, which takes a new process seconds."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path
from subprocess import CompletedProcess

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.worker", "worker.main"])

_LIMIT = 240  # s


def gamma(*arguments: str, **environment: str) -> CompletedProcess[str]:
    """Run a `gamma` command in such a process, with these variables instead of other `GAMMA_*`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GAMMA_")}
    with tempfile.TemporaryDirectory() as folder:
        process = FORKS.Process(
            target=_run, args=(arguments, {**inherited, **environment}, Path(folder))
        )
        process.start()
        process.join(_LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        printed = [(Path(folder) / name).read_text() for name in ("stdout", "stderr")]
    assert code is not None
    return CompletedProcess(arguments, code, *printed)


def _run(arguments: tuple[str, ...], environment: dict[str, str], folder: Path) -> None:
    from app.command.cli import app

    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    app(arguments, prog_name="gamma")
