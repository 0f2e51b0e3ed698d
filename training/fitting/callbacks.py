"""What happens between steps: log, evaluation, checkpoints, early stopping, the progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState

from training.config import Settings
from training.fitting.trainer import GammaTrainer
from training.output import progress_bar, to_json, write_text

LOG_FILE = "log.jsonl"
_SHOWN = ("loss", "eval_loss", "eval_accuracy", "eval_auc", "samples_per_second", "waiting_share")


def stale_evaluations(values: Sequence[float], delta: float) -> int:
    """Count the last evaluations that brought nothing better.

    Args:
        values: One value an evaluation, higher is better.
        delta: What a value must exceed the last better one by, or equal.
    """
    best, stale = float("-inf"), 0
    for value in values:
        if value >= best + delta and value > best:
            best, stale = value, 0
        else:
            stale += 1
    return stale


def is_best(values: Sequence[float]) -> bool:
    """Say whether the last value exceeds all before it."""
    return len(values) > 0 and all(value < values[-1] for value in values[:-1])


def accuracies(state: TrainerState) -> list[float]:
    """Return the validation accuracies so far; a resumed run knows the earlier ones, too."""
    return [line["eval_accuracy"] for line in state.log_history if "eval_accuracy" in line]


class Flow(TrainerCallback):
    """Decides after each step what is due. All it knows is in the trainer's state."""

    def __init__(self, trainer: GammaTrainer, settings: Settings, console: Console) -> None:
        """Steer `trainer` by `settings`."""
        self._trainer = trainer
        self._settings = settings
        self._console = console
        self.stopped_early = False

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Draw the epoch's pictures."""
        self._trainer.batches.epoch = state.global_step // self._trainer.batches.steps
        if state.is_world_process_zero:
            self._console.print(self._trainer.batches.describe())

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Make up for an evaluation that a stopped run had no time for."""
        if self._evaluates_at(state) and not any(
            "eval_loss" in line and line["step"] == state.global_step for line in state.log_history
        ):
            self._trainer.evaluate()

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Log, evaluate, write a checkpoint, stop."""
        train, step = self._settings.train, state.global_step
        self._trainer.update_average()
        stopping = self._trainer.agree_to_stop()
        if stopping and state.is_world_process_zero:
            self._console.print(f"asked to stop: writing a checkpoint of step {step}")
        last = stopping or step >= state.max_steps
        evaluates = self._evaluates_at(state)
        control.should_evaluate = evaluates and not stopping
        control.should_log = last or step % train.log_every == 0
        control.should_save = last or evaluates or step % train.checkpoint_every == 0
        control.should_training_stop |= stopping
        return control

    def _evaluates_at(self, state: TrainerState) -> bool:
        if self._trainer.eval_dataset is None or state.global_step == 0:
            return False
        every = self._settings.train.evaluate_every or self._trainer.batches.steps
        return state.global_step >= state.max_steps or state.global_step % every == 0

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Keep the best network; stop when nothing gets better."""
        values = accuracies(state)
        if is_best(values):
            self._trainer.keep_model()
        stopping = self._settings.stopping
        if stopping.patience and stale_evaluations(values, stopping.delta) >= stopping.patience:
            self.stopped_early = True
            control.should_training_stop = True
        return control


class LogFile(TrainerCallback):
    """One JSON line for everything that is logged; a resumed run has no line twice."""

    def __init__(self, run: Path) -> None:
        """Write into the folder of a run."""
        self._file = run / LOG_FILE

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start with what a resumed run logged before its checkpoint."""
        if state.is_world_process_zero:
            lines = [to_json(line) for line in state.log_history]
            write_text("".join(lines), self._file)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Append the newest line."""
        if state.is_world_process_zero:
            with self._file.open("a", encoding="utf-8") as log:
                log.write(to_json(state.log_history[-1]))


class ProgressBar(TrainerCallback):
    """Steps done, time left, and each line of the log above."""

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        self._bar = progress_bar(console, unit="steps, at most")
        self._task = self._bar.add_task("training")

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin where the run is."""
        if state.is_world_process_zero:
            self._bar.start()
            self._bar.update(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Advance."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Print the numbers that matter."""
        shown = [f"{key} {logs[key]:.4g}" for key in _SHOWN if key in logs]
        if state.is_world_process_zero and shown:
            self._bar.console.print(f"step {state.global_step}: {', '.join(shown)}")

    def close(self) -> None:
        """Leave the screen as it is."""
        self._bar.stop()
