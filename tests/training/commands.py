"""`gamma-train` in processes forked from one that has imported torch."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.forks import FORKS


@contextlib.contextmanager
def started(pipe: Path, *arguments: str, processes: int = 1) -> Iterator[BaseProcess]:
    """Run a command, by default in one process; its errors go to a new named pipe.

    Several processes are those of `torchrun`, which forks them too.
    """
    os.mkfifo(pipe)
    process = FORKS.Process(target=_run, args=(pipe, arguments, processes))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _run(pipe: Path, arguments: tuple[str, ...], processes: int) -> None:
    with pipe.open("w") as errors:
        os.dup2(errors.fileno(), 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if processes == 1:
        _command(*arguments)
        return
    from torch.distributed import run
    from torch.distributed.launcher.api import elastic_launch

    from tests.conftest import free_port

    options = [f"--nproc-per-node={processes}", f"--master-port={free_port()}", "-m", "training"]
    config, _, _ = run.config_from_args(run.parse_args(options))
    config.start_method = "fork"
    import training.cli  # noqa: F401 - once, not in each process

    elastic_launch(config, _command)(*arguments)


def _command(*arguments: str) -> None:
    from training.cli import app

    app(arguments, prog_name="gamma-train")
