"""Checkpoints of a run: its state to resume from, and the best network."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from transformers.trainer_pt_utils import safe_globals

from model import checkpoint
from model.network import GammaModel
from training.errors import UserError
from training.output import to_json

MODEL_FOLDER = "model"
UNFINISHED_FOLDER = "unfinished"
_WEIGHTS_FILE = "model.safetensors"
_AVERAGE_FILE = "average.safetensors"
_OPTIMIZER_FILE = "optimizer.pt"
_SCHEDULER_FILE = "scheduler.pt"
_STATE_FILE = "trainer_state.json"
_DISK_ERRORS = (OSError, RuntimeError, SafetensorError)  # torch and safetensors wrap OSError


class DiskError(UserError):
    """A checkpoint cannot be written; the message names the last complete one."""


@dataclass
class Checkpoints:
    """Writes and reads the checkpoints of one run. All processes call each method together."""

    run: Path
    accelerator: Accelerator
    network: GammaModel
    average: AveragedModel | None
    optimizer: Optimizer
    scheduler: LambdaLR
    keep_last: int
    """Number of checkpoints to keep."""
    written_step: int = -1
    """Step of the last checkpoint written or loaded."""

    @property
    def _random_file(self) -> str:
        """Name of the file with the random number generators of this process."""
        several = self.accelerator.num_processes > 1
        return f"rng_state_{self.accelerator.process_index}.pth" if several else "rng_state.pth"

    def save(self, step: int, history: list[dict[str, float]]) -> None:
        """Write `checkpoint-<step>`, if it does not exist yet, and remove the oldest ones.

        Args:
            step: Steps done so far.
            history: Entries of the log.

        Raises:
            DiskError: It cannot be written.
        """
        if step == self.written_step:
            return
        main, name = self.accelerator.is_main_process, f"checkpoint-{step}"
        unfinished = self.run / UNFINISHED_FOLDER / name
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            state = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
            torch.save(state, unfinished / self._random_file)
            if main:
                self.network.save_pretrained(unfinished)
                torch.save(self.optimizer.state_dict(), unfinished / _OPTIMIZER_FILE)
                torch.save(self.scheduler.state_dict(), unfinished / _SCHEDULER_FILE)
                progress = to_json({"global_step": step, "log_history": history}, indent=2)
                (unfinished / _STATE_FILE).write_text(progress, encoding="utf-8")
                if self.average is not None:
                    save_file(self.average.state_dict(), unfinished / _AVERAGE_FILE)
        except _DISK_ERRORS as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise self.disk_error(error, step) from error
        self.accelerator.wait_for_everyone()
        if main:
            shutil.rmtree(self.run / name, ignore_errors=True)
            unfinished.rename(self.run / name)
            for old in list_checkpoints(self.run)[: -self.keep_last]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()
        self.written_step = step

    def load(self, folder: Path) -> tuple[int, list[dict[str, float]]]:
        """Restore the state of a checkpoint; learning rate and weight decay are not restored.

        Returns:
            Steps done and the entries of the log.
        """
        rates = self.scheduler.base_lrs
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        self.network.load_state_dict(load_file(folder / _WEIGHTS_FILE))
        self.optimizer.load_state_dict(
            torch.load(folder / _OPTIMIZER_FILE, "cpu", weights_only=True)
        )
        self.scheduler.load_state_dict(torch.load(folder / _SCHEDULER_FILE, weights_only=True))
        self.scheduler.base_lrs = rates
        groups = self.optimizer.param_groups
        for group, rate, decay, factor in zip(
            groups, rates, decays, self.scheduler.lr_lambdas, strict=True
        ):
            now = rate * factor(self.scheduler.last_epoch)
            group.update(initial_lr=rate, lr=now, weight_decay=decay)
        if self.average is not None:
            self.average.load_state_dict(load_file(folder / _AVERAGE_FILE))
        file = folder / self._random_file
        if file.exists():  # missing if the number of processes has changed
            with safe_globals():  # type: ignore[no-untyped-call]
                random = torch.load(file, weights_only=True)
            torch.set_rng_state(random["cpu"])
            cuda = random.get("cuda", [])
            torch.cuda.set_rng_state_all([cuda] if isinstance(cuda, Tensor) else cuda)
        state = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
        self.written_step = state["global_step"]
        return state["global_step"], state["log_history"]

    def keep(self, network: GammaModel, step: int) -> None:
        """Write a network to `model/`, in place of the one kept before.

        Raises:
            DiskError: It cannot be written; the one kept before is unchanged.
        """
        if not self.accelerator.is_main_process:
            return
        kept, partial = self.run / MODEL_FOLDER, self.run / UNFINISHED_FOLDER / MODEL_FOLDER
        replaced = self.run / UNFINISHED_FOLDER / "replaced"
        try:
            for leftover in (partial, replaced):
                shutil.rmtree(leftover, ignore_errors=True)
            checkpoint.save(network, partial)
        except _DISK_ERRORS as error:
            raise self.disk_error(error, step) from error
        if kept.exists():
            kept.rename(replaced)
        partial.rename(kept)
        shutil.rmtree(replaced, ignore_errors=True)

    def disk_error(self, error: Exception, step: int) -> DiskError:
        """Return the error for a failed write, with the free space and what to do next."""
        last = next(reversed(list_checkpoints(self.run)), None)
        free = shutil.disk_usage(self.run).free / 2**20
        return DiskError(
            f"{self.run}: cannot write at step {step} ({error}); {free:,.0f} MiB are free there. "
            + (f"{last} is complete: free some space, then resume with --resume" if last else "")
        )


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
