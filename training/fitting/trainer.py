"""Hugging Face's `Trainer` on a GAMMA network.

What it adds: losses that are exact over processes, checkpoints that are whole or absent, and a stop
that names the pictures when numbers or files go bad.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer, TrainingArguments

from model import checkpoint
from model.engine import to_levels
from model.network import IGNORE, GammaModel
from training.config import Settings
from training.data.dataset import (
    Batch,
    EvaluationCrops,
    TrainingCrops,
    UnreadablePictureError,
    collate,
)
from training.fitting.glances import Glances
from training.fitting.sampling import EpochBatches

MODEL_FOLDER = "model"
UNFINISHED_FOLDER = "unfinished"
_EMA_FILE = "average.safetensors"
_HEADS = ("ai", "manipulation")
_TERMS = ("classification_loss", "ai_loss", "manipulation_loss")
_DISK_ERRORS = (OSError, RuntimeError, SafetensorError)  # torch and safetensors hide the first


class NonFiniteError(Exception):
    """The loss or its gradient is not a number; the message names the pictures of the step."""


class DiskError(Exception):
    """A checkpoint cannot be written; the message says which one is whole."""


class GammaTrainer(Trainer):
    """Trains one run.

    A step is a step over the global batch: mask losses are means over the supervised pixels of
    all processes and accumulated parts, as if one process had computed it at once.
    """

    def __init__(
        self,
        model: GammaModel,
        arguments: TrainingArguments,
        settings: Settings,
        run: Path,
        batches: EpochBatches,
        crops: TrainingCrops,
        validation: EvaluationCrops | None,
        glances: dict[str, Glances],
        console: Console,
    ) -> None:
        """Prepare to train `model` in the run's folder."""
        self._glances = glances
        self._split = "train"
        self.batches = batches
        self.stop_requested = False
        self.unreadable: Counter[str] = Counter()
        self._network = model
        self._settings = settings
        self._run = run
        self._crops = crops
        self._console = console
        self._average = None
        if settings.train.ema_decay:
            averaging = get_ema_multi_avg_fn(settings.train.ema_decay)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(model, multi_avg_fn=averaging)
        self._written_step = -1
        self._paths: list[str] = []
        self._supervised: list[list[int]] = []
        self._mean_pixels: list[float] = []
        self._buffers: list[Tensor] = []
        self._restart_clock()
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collate,
            train_dataset=crops,
            eval_dataset=validation,
            compute_metrics=measure,
        )

    @property
    def kept_model(self) -> GammaModel:
        """The network that is evaluated and kept: the moving average, if there is one."""
        return self._network if self._average is None else cast(GammaModel, self._average.module)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader that `batches` drives; it is already this process's part."""
        workers = self._settings.data.workers
        return DataLoader(
            self._crops,
            batch_sampler=self.batches,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=self.args.device.type == "cuda",
            generator=torch.Generator().manual_seed(self._settings.train.seed),
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], None]:
        """Fetch the parts of one step, and agree with the other processes about it."""
        start = time.perf_counter()
        parts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._waited += time.perf_counter() - start
        problems = [problem for part in parts for problem in part["problems"]]
        self._report(problems)
        self._paths = [path for part in parts for path in part["paths"]]
        self._buffers = [buffer.clone() for buffer in self._network.buffers()]
        failed = bool(problems) and self._settings.data.unreadable == "fail"
        self._supervised = self._count_supervised(parts)
        self._agree(failed, problems, len(parts))
        self._samples += sum(len(part["paths"]) for part in parts) * self.args.world_size
        return parts, None

    def _count_supervised(self, parts: list[Batch]) -> list[list[int]]:
        """Count the supervised pixels by part and head (parts, heads)."""
        return [
            [int((part[f"{head}_labels"] != IGNORE).sum()) for head in _HEADS] for part in parts
        ]

    def _agree(self, failed: bool, problems: list[str], parts: int) -> None:
        totals = np.sum(self._supervised, axis=0)
        facts = torch.tensor([failed, *totals], dtype=torch.float64, device=self.args.device)
        if self.args.world_size > 1:
            facts = self.accelerator.reduce(facts, "sum")
        failures, *pixels = facts.tolist()
        self._mean_pixels = [total / (parts * self.args.world_size) for total in pixels]
        if failures:
            self.write_checkpoint()
            names = "; ".join(problems) or "another process says which"
            raise UnreadablePictureError(f"a picture of the next step cannot be read: {names}")

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        tensors = {k: v for k, v in inputs.items() if isinstance(v, Tensor)}
        prepared = super()._prepare_inputs(tensors)
        prepared["pixel_values"] = to_levels(prepared.pop("tiles"))
        if self._glances:
            kept = self._glances[self._split]
            prepared["features"] = kept.of(inputs["rows"], inputs["mirrored"], self.args.device)
        else:
            del prepared["boxes"]
        return prepared

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return equation 6 for one part of the global batch."""
        outputs = model(**inputs)
        counts = self._supervised.pop(0)
        loss: Tensor = outputs.loss
        for head, count, mean in zip(_HEADS, counts, self._mean_pixels, strict=True):
            term = outputs.get(f"{head}_loss")
            if term is not None and count != mean:
                weight = getattr(self._network.config, f"{head}_weight")
                loss = loss + weight * (count / mean - 1) * term
        for name in _TERMS:
            if name in outputs:
                self._terms[name] = self._terms.get(name, 0) + outputs[name].detach()
        self._parts += 1
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # Gradients are means over processes by now, so all processes see the same and stop.
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if not bool(torch.isfinite(torch.as_tensor(norm))):
            with torch.no_grad():  # the forward pass may have poisoned the running statistics
                for buffer, before in zip(self._network.buffers(), self._buffers, strict=True):
                    buffer.copy_(before)
            self.write_checkpoint()
            raise NonFiniteError(
                f"step {self.state.global_step + 1}: the loss or its gradient is not finite. "
                f"Pictures of the step: {', '.join(self._paths)}"
            )
        return norm

    def agree_to_stop(self) -> bool:
        """Say whether any process was asked to stop; all of them must ask together."""
        if self.args.world_size > 1:
            asked = torch.tensor([float(self.stop_requested)], device=self.args.device)
            self.stop_requested = bool(self.accelerator.reduce(asked, "sum") > 0)
        return self.stop_requested

    def update_average(self) -> None:
        """Let the moving average follow the weights by one step."""
        if self._average is not None:
            self._average.update_parameters(self._network)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to a line of the log what its steps cost and the terms of their loss."""
        if "loss" in logs:
            seconds = time.perf_counter() - self._clock
            logs["samples_per_second"] = self._samples / seconds
            logs["waiting_share"] = self._waited / seconds
            logs["unreadable"] = float(sum(self.unreadable.values()))
            for name, total in self._terms.items():
                mean = torch.as_tensor(total, device=self.args.device) / max(self._parts, 1)
                logs[name] = float(self.accelerator.reduce(mean, "mean"))
            self._restart_clock()
        super().log(logs, start_time)

    def _restart_clock(self) -> None:
        self._clock = time.perf_counter()
        self._waited = 0.0
        self._samples = 0
        self._parts = 0
        self._terms: dict[str, Tensor | float] = {}

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Evaluate what would be kept; training's clock and random numbers do not notice."""
        start = time.perf_counter()
        trained, self.model = self.model, self.kept_model
        self._split = "validation"
        try:
            with torch.random.fork_rng(devices=[]):
                metrics: dict[str, float] = super().evaluate(*arguments, **options)
        finally:
            self.model = trained
            self._split = "train"
        self._clock += time.perf_counter() - start
        return metrics

    @torch.no_grad()
    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, image logits (B,) and labels (B,); masks are too large to collect."""
        self._report(inputs["problems"])
        prepared = self._prepare_inputs(inputs)
        outputs = model(**prepared)
        return outputs.loss, outputs.logits.float(), prepared["labels"]

    def _report(self, problems: list[str]) -> None:
        for problem in problems:
            if not self.unreadable[problem]:
                self._console.print(f"unreadable, replaced: {problem}")
            self.unreadable[problem] += 1

    def write_checkpoint(self) -> None:
        """Write a checkpoint of the state before the next step, if there is none yet."""
        self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        if step == self._written_step:
            return
        name = f"checkpoint-{step}"
        unfinished = self._run / UNFINISHED_FOLDER / name
        try:
            super()._save_checkpoint(model, trial)
            if self._average is not None and self.args.should_save:
                save_file(self._average.state_dict(), unfinished / _EMA_FILE)
        except _DISK_ERRORS as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise self.disk_error(error) from error
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(self._run / name, ignore_errors=True)
            unfinished.rename(self._run / name)
            for old in list_checkpoints(self._run)[: -self._settings.train.keep_checkpoints]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()
        self._written_step = step

    def disk_error(self, error: Exception) -> DiskError:
        """Say that nothing more could be written, and what is left."""
        last = next(reversed(list_checkpoints(self._run)), None)
        free = shutil.disk_usage(self._run).free / 2**20
        return DiskError(
            f"{self._run}: cannot write at step {self.state.global_step} ({error}); "
            f"{free:,.0f} MiB are free there. "
            + (f"{last} is whole: make room, then go on with --resume" if last else "Make room")
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._average is not None:
            self._average.load_state_dict(load_file(Path(resume_from_checkpoint, _EMA_FILE)))
        self._written_step = int(resume_from_checkpoint.rpartition("-")[2])

    def keep_model(self) -> None:
        """Write the network as a Hugging Face folder in place of the one that was kept before."""
        if not self.args.should_save:
            return
        kept, partial = self._run / MODEL_FOLDER, self._run / UNFINISHED_FOLDER / MODEL_FOLDER
        replaced = self._run / UNFINISHED_FOLDER / "replaced"
        try:
            for leftover in (partial, replaced):
                shutil.rmtree(leftover, ignore_errors=True)
            checkpoint.save(self.kept_model, partial)
        except _DISK_ERRORS as error:
            raise self.disk_error(error) from error
        if kept.exists():
            kept.rename(replaced)
        partial.rename(kept)
        shutil.rmtree(replaced, ignore_errors=True)


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def measure(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy at probability 0.5 and, with both classes there, the AUC."""
    logits = cast(NDArray[np.float32], prediction.predictions)  # (N,)
    labels = cast(NDArray[np.float32], prediction.label_ids) > 0.5  # (N,)
    metrics = {"accuracy": float(((logits > 0) == labels).mean())}
    if labels.any() and not labels.all():
        metrics["auc"] = float(roc_auc_score(labels, logits))
    return metrics
