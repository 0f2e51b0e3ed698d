"""Two processes on a CPU give the same results as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.training.commands import started
from tests.training.conftest import small_settings
from training import config
from training.fitting.checkpoints import list_checkpoints
from training.fitting.fit import fit


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
    settings = small_settings(tree, "start.drop_path=0.0", "train.epochs=2")
    fit(settings, tmp_path / "one")
    file, run = tmp_path / "small.toml", tmp_path / "two"
    config.save(settings, file)
    pipe, said = tmp_path / "errors", ""
    with started(pipe, "fit", str(file), "--out", str(run), processes=2) as process:
        with pipe.open() as errors:
            for line in errors:
                said += line
                if line.startswith("step 4: loss"):
                    process.terminate()
        process.join()
    assert list_checkpoints(run), said
    step = int(list_checkpoints(run)[-1].name.rpartition("-")[2])
    assert step >= 4, said
    assert not list((run / "unfinished").glob("checkpoint-*"))
    assert fit(settings, run, resume=True).ending == "epochs"
    one, two = curve(tmp_path / "one"), curve(run)
    assert two == pytest.approx(one, rel=2e-3)
    for name in ("loss", "ai_loss"):
        assert two[name, 1] == pytest.approx(one[name, 1], rel=1e-5)
