"""A training run in its folder."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from rich.console import Console
from transformers.utils import logging as library_logging

from model.engine import preferred_dtype
from model.network import GammaModel
from training.config import ConfigError, Settings, differences, load, save
from training.data.dataset import Pictures, load_pictures
from training.data.labels import Kind
from training.fitting import cooccurrence, network
from training.fitting.checkpoints import UNFINISHED_FOLDER, list_checkpoints
from training.fitting.sampling import EpochBatches
from training.fitting.tower_cache import TowerCache
from training.fitting.trainer import Ending, Trainer
from training.output import console as make_console
from training.output import progress_bar, to_json, write_text

CONFIG_FILE = "config.toml"
RESULT_FILE = "result.json"
GLANCES_FOLDER = "glances"


@dataclass(frozen=True)
class Result:
    """Result of a run."""

    ending: Ending
    step: int
    best_accuracy: float | None
    """Validation accuracy of the kept network; None without validation pictures."""
    unreadable: int
    """Number of unreadable pictures that were replaced, with repeats."""

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.ending != "signal"


def read_result(run: Path) -> Result | None:
    """Return the result of a run, or None if it is not complete."""
    file = run / RESULT_FILE
    return Result(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def fit(
    settings: Settings, run: Path, *, resume: bool = False, console: Console | None = None
) -> Result:
    """Train until the last epoch, early stopping or a signal.

    Under `torchrun` every process calls this; each batch is divided among them. SIGTERM and SIGINT
    end the run after the current step, with a checkpoint; a second signal ends the process.

    Args:
        settings: Settings of the run.
        run: Folder of the run: `config.toml`, `checkpoint-<step>/`, `model/` (the best network as
            a Hugging Face folder), `tensorboard/`, `log.jsonl` and, at the end, `result.json`.
        resume: Resume from the last checkpoint, if there is one.
        console: Terminal for messages; standard error by default.

    Raises:
        ConfigError: The settings do not fit the rows, or the folder holds another run.
        NonFiniteError: The loss or its gradient is not finite. The checkpoint of the step before
            is written first.
        UnreadablePictureError: A picture cannot be read, and `data.unreadable` is `fail`.
        DiskError: A file cannot be written. The last checkpoint is complete.
    """
    console = console or make_console(stderr=True, soft_wrap=True)
    if (run / CONFIG_FILE).exists() and not resume:
        raise ConfigError(f"{run}: already holds a run; use --resume or another folder")
    library_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    library_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    accelerator = _make_accelerator(settings)
    last = next(reversed(list_checkpoints(run)), None)
    trainer = _make_trainer(settings, run, accelerator, console, fresh=last is None)
    try:
        if accelerator.is_main_process:
            _open_run(settings, run, console)
        if resume:
            trainer.log.say(f"resuming from {last or 'the start: there is no checkpoint'}")
        with _stop_on_signal(trainer):
            ending = trainer.train(last)
        best = max(trainer.log.accuracies(), default=None)
        result = Result(ending, trainer.step, best, trainer.unreadable.total())
        if accelerator.is_main_process:
            _close_run(run, result)
    except OSError as error:
        raise trainer.checkpoints.disk_error(error, trainer.step) from error
    finally:
        trainer.log.close()
    return result


def _make_accelerator(settings: Settings) -> Accelerator:
    """Choose device and precision; join the other processes, if any."""
    train = settings.train
    on_cpu = train.device == "cpu" or not torch.cuda.is_available()
    fastest = preferred_dtype(torch.device("cpu" if on_cpu else "cuda"))
    precision = fastest if train.precision == "auto" else train.precision
    AcceleratorState._reset_state()  # the precision of an earlier run in this process
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if precision == "bfloat16" else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def _make_trainer(
    settings: Settings, run: Path, accelerator: Accelerator, console: Console, *, fresh: bool
) -> Trainer:
    """Read the rows and build the network and its trainer."""
    data = settings.data
    if not data.manifests:
        raise ConfigError("data.manifests: empty; name a manifest with --data")
    pictures = load_pictures(data.manifests, "train", data.kinds)
    validation = load_pictures(data.manifests, "validation", data.kinds)
    if settings.stopping.patience and not len(validation):
        raise ConfigError(
            "no row has split validation, which early stopping needs (stopping.patience=0: never)"
        )
    processes, rank = accelerator.num_processes, accelerator.process_index
    batches = EpochBatches(pictures, settings, processes=processes, rank=rank)
    if accelerator.is_main_process:
        _describe(pictures, validation, console)
    model = network.build(settings)
    if fresh and not settings.start.checkpoint:
        cooccurrence.start(model, pictures, settings, console)
    sets = {"train": pictures, "validation": validation}
    glances = _compute_tower_features(model, sets, settings, run, console)
    if processes > 1:
        network.synchronise_batch_norm(model, accelerator.device)
    return Trainer(model, accelerator, settings, run, batches, sets, glances, console)


def _compute_tower_features(
    model: GammaModel,
    sets: dict[str, Pictures],
    settings: Settings,
    run: Path,
    console: Console,
) -> dict[str, TowerCache]:
    """Compute the tower features of all pictures by split; empty without a prior."""
    if model.glance is None:
        return {}
    found = {}
    for split, pictures in sets.items():
        found[split] = TowerCache(run / GLANCES_FOLDER / split, pictures)
        with progress_bar(console, transient=True) as progress:
            bar = progress.add_task(f"glances, {split}", total=len(pictures))
            found[split].fill(
                model.glance, settings.data.max_pixels, partial(progress.advance, bar)
            )
    return found


def _open_run(settings: Settings, run: Path, console: Console) -> None:
    """Create the folder of a run; remove partial files of an interrupted run."""
    run.mkdir(parents=True, exist_ok=True)
    file = run / CONFIG_FILE
    if file.exists():
        for line in differences(load(file), settings):
            console.print(f"changed since the run began: {line}")
    save(settings, file)
    shutil.rmtree(run / UNFINISHED_FOLDER, ignore_errors=True)
    (run / RESULT_FILE).unlink(missing_ok=True)


def _close_run(run: Path, result: Result) -> None:
    shutil.rmtree(run / UNFINISHED_FOLDER, ignore_errors=True)
    if result.finished:
        write_text(to_json(asdict(result), indent=1), run / RESULT_FILE)


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """Stop after the current step on SIGTERM or Ctrl-C; a second signal ends the process."""

    def request(number: int, frame: FrameType | None) -> None:
        # Do not print here: the signal may have interrupted a print.
        trainer.stop_requested = True
        signal.signal(number, before[number])

    before: dict[int, Any] = {
        number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _describe(training: Pictures, validation: Pictures, console: Console) -> None:
    for name, pictures in (("train", training), ("validation", validation)):
        kinds = ", ".join(
            f"{kind} {len(rows):,}" for kind in Kind if len(rows := pictures.of_kind(kind))
        )
        console.print(f"{name}: {len(pictures):,} pictures ({kinds or 'none'})")
