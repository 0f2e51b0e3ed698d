"""The training loop.

Losses are exact over processes, checkpoints are complete or absent, and errors name the pictures.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from model.engine import to_levels
from model.network import IGNORE, GammaModel
from training.config import Settings
from training.data.dataset import (
    Batch,
    EvaluationCrops,
    Pictures,
    TrainingCrops,
    UnreadablePictureError,
    collate,
)
from training.errors import UserError
from training.fitting.checkpoints import Checkpoints
from training.fitting.log import RunLog, is_best, stale_evaluations
from training.fitting.sampling import EpochBatches
from training.fitting.tower_cache import TowerCache

Ending = Literal["epochs", "early stopping", "signal"]

_HEADS = ("ai", "manipulation")
_TERMS = ("loss", "classification_loss", "ai_loss", "manipulation_loss")
_NO_DECAY = ("bias", "layernorm", "rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")


class NonFiniteError(UserError):
    """The loss or the gradient norm of a step is NaN or infinite."""


class Trainer:
    """Trains one run.

    A step is one optimizer step over the global batch. Mask losses are means over the supervised
    pixels of all processes and accumulated parts.
    """

    def __init__(
        self,
        model: GammaModel,
        accelerator: Accelerator,
        settings: Settings,
        run: Path,
        batches: EpochBatches,
        pictures: dict[str, Pictures],
        glances: dict[str, TowerCache],
        console: Console,
    ) -> None:
        """Set up optimizer, schedule, data loaders and log.

        Args:
            model: The network; trained in place.
            accelerator: Device, precision and processes.
            settings: Settings of the run.
            run: Folder of the run.
            batches: Batches of this process.
            pictures: Rows of the splits `train` and `validation`; nothing is evaluated if the
                latter is empty.
            glances: Cached features of the frozen tower by split; empty without a prior.
            console: Terminal for messages.
        """
        train, workers = settings.train, settings.data.workers
        self.step = 0
        self.stop_requested = False
        """Set by a signal handler, in any process; all processes end after the same step."""
        self._ending: Ending | None = None
        """Why training has ended before its last step; None: it has not."""
        self.unreadable: Counter[str] = Counter()
        self._accelerator = accelerator
        self._settings = settings
        self._batches = batches
        self._glances = glances
        self._console = console
        self._total_steps = train.epochs * batches.steps
        self._network = model
        self._average = None
        self._kept = model
        if train.ema_decay:
            averaging = get_ema_multi_avg_fn(train.ema_decay)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(model.to(accelerator.device), multi_avg_fn=averaging)
            self._kept = cast(GammaModel, self._average.module)
        set_seed(train.seed)
        self._model = accelerator.prepare_model(model)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(model, train.weight_decay), train.learning_rate, fused=True
        )
        schedule = "constant_with_warmup" if train.schedule == "constant" else train.schedule
        steps = (train.warmup_steps, self._total_steps)
        self._scheduler = get_scheduler(schedule, self._optimizer, *steps)
        self._loader: DataLoader[Any] = DataLoader(
            TrainingCrops(pictures["train"], settings),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=accelerator.device.type == "cuda",
            generator=torch.Generator().manual_seed(train.seed),
        )
        self._validation: Any = None
        if len(pictures["validation"]):
            crops = EvaluationCrops(pictures["validation"], settings)
            self._validation = accelerator.prepare_data_loader(
                DataLoader(crops, batches.size, num_workers=workers, collate_fn=collate)
            )
        self.log = RunLog(run, console, enabled=accelerator.is_main_process)
        state = (model, self._average, self._optimizer, self._scheduler)
        self.checkpoints = Checkpoints(run, accelerator, *state, train.keep_checkpoints)

    def train(self, last: Path | None) -> Ending:
        """Train until the last epoch, early stopping or a requested stop.

        Args:
            last: Checkpoint to resume from.

        Returns:
            Why training ended.

        Raises:
            NonFiniteError: The loss or its gradient is not finite. The checkpoint of the step
                before is written first.
            UnreadablePictureError: A picture cannot be read and may not be replaced; likewise.
            DiskError: A checkpoint or the network cannot be written.
        """
        if last is not None:
            self.step, self.log.history = self.checkpoints.load(last)
        self.log.start(self.step, self._total_steps)
        self._restart_clock()
        evaluated = any("eval_loss" in x and x["step"] == self.step for x in self.log.history)
        if self._evaluates() and not evaluated:
            self._evaluate()  # the interrupted run stopped before this evaluation
        while not self._ending and self.step < self._total_steps:
            self._batches.epoch, self._batches.skip = divmod(self.step, self._batches.steps)
            self.log.say(self._batches.describe())
            for parts in self._fetch():
                self._train_step(parts)
                self._finish_step()
                if self._ending:
                    break
        if self._validation is None:
            self.checkpoints.keep(self._kept, self.step)
        return self._ending or "epochs"

    def _fetch(self) -> Iterator[list[Batch]]:
        """Yield the accumulated parts of each remaining step of the epoch."""
        batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            parts = list(islice(batches, self._settings.train.accumulation))
            self._waited += time.perf_counter() - start
            if not parts:
                return
            yield parts

    def _train_step(self, parts: list[Batch]) -> None:
        """Compute the gradient of one step and update the weights."""
        pixels = [
            [int((part[f"{head}_labels"] != IGNORE).sum()) for head in _HEADS] for part in parts
        ]
        means = self._synchronise(parts, pixels)
        buffers = [buffer.clone() for buffer in self._network.buffers()]
        self._model.train()
        for part, counts in zip(parts, pixels, strict=True):
            with nullcontext() if part is parts[-1] else self._accelerator.no_sync(self._model):
                loss = self.compute_loss(self._to_inputs(part, "train"), counts, means)
                self._accelerator.backward(loss / len(parts))
        gradients = [p.grad for p in self._trained if p.grad is not None]
        self._grad_norm = nn.utils.get_total_norm(gradients)
        # Gradients are averaged over processes here: all processes see the same norm.
        if not bool(self._grad_norm.isfinite()):
            with torch.no_grad():  # the forward pass may have put NaN into the running statistics
                for buffer, before in zip(self._network.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            self.checkpoints.save(self.step, self.log.history)
            paths = ", ".join(path for part in parts for path in part["paths"])
            raise NonFiniteError(
                f"step {self.step + 1}: the loss or its gradient is not finite. "
                f"Pictures of the step: {paths}"
            )
        if limit := self._settings.train.max_grad_norm:
            nn.utils.clip_grads_with_norm_(self._trained, limit, self._grad_norm)
        self._optimizer.step()
        self._learning_rate = self._optimizer.param_groups[0]["lr"]
        self._scheduler.step()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.update_parameters(self._network)
        self.step += 1

    def _synchronise(self, parts: list[Batch], pixels: list[list[int]]) -> list[float]:
        """Report unreadable pictures and share pixel counts among processes.

        Args:
            parts: The accumulated parts of a step.
            pixels: Supervised pixels by part and head.

        Returns:
            Mean number of supervised pixels per part over all processes, by head.

        Raises:
            UnreadablePictureError: A picture of any process is unreadable and may not be replaced.
        """
        problems = [problem for part in parts for problem in part["problems"]]
        self._report(problems)
        failed = bool(problems) and self._settings.data.unreadable == "fail"
        failures, *totals = self._sum([float(failed), *np.sum(pixels, axis=0).tolist()])
        if failures:
            self.checkpoints.save(self.step, self.log.history)
            names = "; ".join(problems) or "see the other processes"
            raise UnreadablePictureError(f"a picture of the next step cannot be read: {names}")
        processes = self._accelerator.num_processes
        self._samples += sum(len(part["paths"]) for part in parts) * processes
        return [total / (len(parts) * processes) for total in totals]

    def _sum(self, values: list[float]) -> list[float]:
        """Sum numbers over processes."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        reduced: Tensor = self._accelerator.reduce(tensor, "sum")
        return reduced.tolist()

    def _to_inputs(self, batch: Batch, split: str) -> dict[str, Any]:
        """Move a batch to the device as keyword arguments of the network."""
        device = self._accelerator.device
        inputs: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in batch.items()
            if isinstance(value, Tensor)
        }
        inputs["pixel_values"] = to_levels(inputs.pop("tiles"))
        if self._glances:
            kept = self._glances[split]
            inputs["features"] = kept.of(batch["rows"], batch["mirrored"], device)
        return inputs

    def compute_loss(self, inputs: dict[str, Any], pixels: list[int], means: list[float]) -> Tensor:
        """Compute equation 6 for one part of the global batch.

        Args:
            inputs: Keyword arguments of the network.
            pixels: Supervised pixels of the part, by head.
            means: Mean of that number over all parts and processes, by head.

        Returns:
            The loss, a scalar. Its mean over parts and processes is the loss of the step.
        """
        outputs = self._model(**inputs)
        loss: Tensor = outputs.loss
        for head, count, mean in zip(_HEADS, pixels, means, strict=True):
            term = outputs.get(f"{head}_loss")
            if term is not None and count != mean:
                weight = getattr(self._network.config, f"{head}_weight")
                loss = loss + weight * (count / mean - 1) * term
        for name, value in {**outputs, "loss": loss}.items():
            if name in _TERMS:
                self._terms[name] = value.detach() + self._terms.get(name, 0)
        self._parts += 1
        return loss

    def _finish_step(self) -> None:
        """Log, evaluate, write a checkpoint and decide whether to stop."""
        train = self._settings.train
        self.log.advance(self.step)
        evaluates = self._evaluates()
        if self._sum([float(self.stop_requested)])[0]:
            self.log.say(f"stop requested: writing a checkpoint of step {self.step}")
            self._ending = "signal"
        last = bool(self._ending) or self.step >= self._total_steps
        if last or self.step % train.log_every == 0:
            self._log()
        if evaluates and self._ending != "signal":
            self._evaluate()
        if last or evaluates or self.step % train.checkpoint_every == 0:
            self.checkpoints.save(self.step, self.log.history)

    def _evaluates(self) -> bool:
        if self._validation is None or self.step == 0:
            return False
        every = self._settings.train.evaluate_every or self._batches.steps
        return self.step >= self._total_steps or self.step % every == 0

    def _log(self) -> None:
        """Log means over the steps since the last line, and restart the clock."""
        seconds = time.perf_counter() - self._clock
        values = {
            name: float(self._accelerator.reduce(total / self._parts, "mean"))
            for name, total in self._terms.items()
        }
        values |= {
            "grad_norm": float(self._grad_norm),
            "learning_rate": self._learning_rate,
            "samples_per_second": self._samples / seconds,
            "waiting_share": self._waited / seconds,
            "unreadable": float(self.unreadable.total()),
        }
        self.log.write(values, self.step, self.step / self._batches.steps)
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._clock = time.perf_counter()
        self._waited = 0.0
        self._samples = self._parts = 0
        self._terms: dict[str, Tensor] = {}

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Evaluate the kept network, keep it if it is the best, and check early stopping.

        The clock and the random number generator of training are not affected.
        """
        start = time.perf_counter()
        network = self._kept.eval()  # type: ignore[no-untyped-call]
        found: list[tuple[Tensor, ...]] = []
        with torch.random.fork_rng(devices=[]):
            for batch in self._validation:
                self._report(batch["problems"])
                inputs = self._to_inputs(batch, "validation")
                outputs = network(**inputs)
                labels = inputs["labels"]
                one = (outputs.loss.repeat(len(labels)), outputs.logits.float(), labels)
                found.append(self._accelerator.gather_for_metrics(one))
        losses, logits, labels = (torch.cat(x).cpu().numpy() for x in zip(*found, strict=True))
        metrics = {"loss": float(losses.mean()), **measure(logits, labels)}
        values = {f"eval_{name}": value for name, value in metrics.items()}
        self.log.write(values, self.step, self.step / self._batches.steps)
        accuracies = self.log.accuracies()
        if is_best(accuracies):
            self.checkpoints.keep(self._kept, self.step)
        stopping = self._settings.stopping
        if stopping.patience and stale_evaluations(accuracies, stopping.delta) >= stopping.patience:
            self._ending = "early stopping"
        self._clock += time.perf_counter() - start

    def _report(self, problems: list[str]) -> None:
        """Count unreadable pictures; print each the first time."""
        for problem in sorted(set(problems) - self.unreadable.keys()):
            self._console.print(f"unreadable, replaced: {problem}")
        self.unreadable.update(problems)


def _parameter_groups(model: GammaModel, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trained parameters: biases and norms without weight decay."""
    decayed = set(get_parameter_names(model, [nn.LayerNorm], _NO_DECAY))  # type: ignore[no-untyped-call]
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in trained if name in decayed], "weight_decay": weight_decay},
        {"params": [p for name, p in trained if name not in decayed], "weight_decay": 0.0},
    ]


def measure(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> dict[str, float]:
    """Compute the accuracy at probability 0.5 and, if both classes are present, the AUC.

    Args:
        logits: Image logits (N,).
        labels: 0 or 1 (N,).
    """
    truth = labels > 0.5
    metrics = {"accuracy": float(((logits > 0) == truth).mean())}
    if truth.any() and not truth.all():
        metrics["auc"] = float(roc_auc_score(truth, logits))
    return metrics
