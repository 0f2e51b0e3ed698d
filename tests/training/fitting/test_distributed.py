"""Two processes on a CPU give the same results as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.conftest import free_port
from tests.training.conftest import small_settings
from training import config
from training.fitting.checkpoints import list_checkpoints
from training.fitting.fit import fit

LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def curve(run: Path) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = ("loss", "ai_loss", "eval_loss")
    return {(name, line["step"]): line[name] for line in lines for name in names if name in line}


def test_synchronised_batch_norm_needs_a_gpu() -> None:
    """The reason for `SharedBatchNorm`."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on"):
            nn.SyncBatchNorm(3)(torch.zeros(2, 3, 4, 4))
    finally:
        dist.destroy_process_group()


def test_two_processes_give_the_losses_of_one_process(tree: Path, tmp_path: Path) -> None:
    """Covers batch norm, unequal supervision of the processes, SIGTERM and resuming.

    Without stochastic depth, which is random per process.
    """
    settings = small_settings(tree, "start.drop_path=0.0", "train.epochs=3")
    fit(settings, tmp_path / "one")
    file, run = tmp_path / "small.toml", tmp_path / "two"
    config.save(settings, file)
    launch = [*LAUNCH, f"--master-port={free_port()}", "-m", "training"]
    with subprocess.Popen(
        [*launch, "fit", str(file), "--out", str(run)],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith("step 6: loss"):
                process.send_signal(signal.SIGTERM)
        process.wait()
    assert list_checkpoints(run), said
    step = int(list_checkpoints(run)[-1].name.rpartition("-")[2])
    assert step >= 6, said
    assert not list((run / "unfinished").glob("checkpoint-*"))
    assert fit(settings, run, resume=True).ending == "epochs"
    one, two = curve(tmp_path / "one"), curve(run)
    assert two == pytest.approx(one, rel=2e-3)
    for name in ("loss", "ai_loss"):
        assert two[name, 1] == pytest.approx(one[name, 1], rel=1e-5)
