"""The log of a run (`log.jsonl`, TensorBoard, terminal), and early stopping on its accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from training.output import progress_bar, to_json, write_text

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
_SHOWN = ("loss", "eval_loss", "eval_accuracy", "eval_auc", "samples_per_second", "waiting_share")


class RunLog:
    """Writes what is measured during a run. Only the main process writes and prints."""

    def __init__(self, run: Path, console: Console, *, enabled: bool) -> None:
        """Prepare the log of the run in folder `run`.

        Args:
            run: Folder of the run.
            console: Where messages and the progress bar are printed.
            enabled: Whether to write and print; `history` is kept in any case.
        """
        self.history: list[dict[str, float]] = []
        """All entries so far, those of a resumed run included."""
        self._run = run
        self._enabled = enabled
        self._console = console
        self._bar = progress_bar(console, unit="steps, at most")
        self._task = self._bar.add_task("training")
        self._writer: SummaryWriter | None = None

    def start(self, step: int, total: int) -> None:
        """Open the files, remove entries after `step`, and show the progress bar.

        Args:
            step: Steps done so far.
            total: Steps of the whole run.
        """
        if self._enabled:
            write_text("".join(map(to_json, self.history)), self._run / LOG_FILE)
            self._writer = SummaryWriter(str(self._run / TENSORBOARD_FOLDER), purge_step=step)
            self._bar.start()
            self._bar.update(self._task, total=total, completed=step)

    def advance(self, step: int) -> None:
        """Update the progress bar to `step` steps done."""
        self._bar.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """Print a line in the main process."""
        if self._enabled:
            self._console.print(text)

    def write(self, values: dict[str, float], step: int, epoch: float) -> None:
        """Add an entry: to the history, the file, TensorBoard and the terminal."""
        entry = values | {"epoch": epoch, "step": step}
        self.history.append(entry)
        if not self._enabled or self._writer is None:
            return
        with (self._run / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(to_json(entry))
        for name, value in values.items():
            tag = f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()
        shown = ", ".join(f"{name} {values[name]:.4g}" for name in _SHOWN if name in values)
        self._console.print(f"step {step}: {shown}")

    def accuracies(self) -> list[float]:
        """Return the validation accuracies so far, oldest first."""
        return [entry["eval_accuracy"] for entry in self.history if "eval_accuracy" in entry]

    def close(self) -> None:
        """Close TensorBoard's file and stop the progress bar."""
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()


def stale_evaluations(values: Sequence[float], delta: float) -> int:
    """Count the evaluations since the last improvement.

    Args:
        values: One value per evaluation, higher is better.
        delta: Minimum improvement over the last value that counted as better.
    """
    best, stale = float("-inf"), 0
    for value in values:
        if value >= best + delta and value > best:
            best, stale = value, 0
        else:
            stale += 1
    return stale


def is_best(values: Sequence[float]) -> bool:
    """Return whether the last value is greater than all before it."""
    return len(values) > 0 and all(value < values[-1] for value in values[:-1])
