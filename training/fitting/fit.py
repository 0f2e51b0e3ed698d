"""Fitting a network to manifests: one run, one folder."""

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
from typing import Any, Literal

import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter
from transformers import PrinterCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.utils import logging as library_logging

from model.engine import preferred_dtype
from model.network import GammaModel
from training.config import ConfigError, Settings, differences, load, save
from training.data.dataset import EvaluationCrops, Pictures, TrainingCrops, load_pictures
from training.data.labels import Kind
from training.fitting import cooccurrence, network
from training.fitting.callbacks import Flow, LogFile, ProgressBar, accuracies
from training.fitting.glances import Glances
from training.fitting.sampling import EpochBatches
from training.fitting.trainer import UNFINISHED_FOLDER, GammaTrainer, list_checkpoints
from training.output import console as make_console
from training.output import progress_bar, to_json, write_text

CONFIG_FILE = "config.toml"
RESULT_FILE = "result.json"
TENSORBOARD_FOLDER = "tensorboard"
GLANCES_FOLDER = "glances"


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    ending: Literal["epochs", "early stopping", "signal"]
    step: int
    best_accuracy: float | None
    """Of the validation pictures, for the network that was kept."""
    unreadable: int
    """How often a picture could not be read and was replaced."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.ending != "signal"


def read_result(run: Path) -> Result | None:
    """Return how a run ended, or None if it has not."""
    file = run / RESULT_FILE
    return Result(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def fit(
    settings: Settings, run: Path, *, resume: bool = False, console: Console | None = None
) -> Result:
    """Train until the epochs are done, nothing gets better, or a signal asks to stop.

    Under `torchrun` every process calls this; the batch is divided among them.

    Args:
        settings: Everything that decides the run.
        run: Its folder: `config.toml`, `checkpoint-<step>/`, `model/` (the best network as a
            Hugging Face folder), `tensorboard/`, `log.jsonl` and, at the end, `result.json`.
        resume: Go on from the last checkpoint, if there is one.
        console: Where to say what happens.

    Raises:
        ConfigError: The settings or the rows do not allow a run, or the folder holds another.
        NonFiniteError: The loss is not a number; there is a checkpoint from before.
        UnreadablePictureError: A picture cannot be read, and the settings forbid to replace it.
        DiskError: There is no room to write; the last checkpoint is whole.
    """
    console = console or make_console(stderr=True, soft_wrap=True)
    if (run / CONFIG_FILE).exists() and not resume:
        raise ConfigError(f"{run}: holds a run already; go on with --resume or choose another")
    arguments = _arguments(settings, run)
    last = next(reversed(list_checkpoints(run)), None)
    trainer = _make_trainer(settings, run, arguments, console, fresh=last is None)
    flow, bar = Flow(trainer, settings, console), ProgressBar(console)
    trainer.remove_callback(PrinterCallback)
    for callback in (flow, LogFile(run), bar):
        trainer.add_callback(callback)
    try:
        with arguments.distributed_state.main_process_first():
            if arguments.should_save:
                _open_run(settings, run, console)
        if arguments.should_save:
            trainer.add_callback(_tensorboard(run, last))
            if resume:
                console.print(f"going on from {last or 'the start: there is no checkpoint'}")
        with _stop_on_signal(trainer):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            if trainer.eval_dataset is None:
                trainer.keep_model()
        result = _conclude(trainer, flow)
        if arguments.should_save:
            _close_run(run, result)
    except OSError as error:
        raise trainer.disk_error(error) from error
    finally:
        bar.close()
    return result


def _make_trainer(
    settings: Settings,
    run: Path,
    arguments: TrainingArguments,
    console: Console,
    *,
    fresh: bool,
) -> GammaTrainer:
    """Read the rows, build the network, and put them together."""
    data = settings.data
    if not data.manifests:
        raise ConfigError("data.manifests: there is none; give one with --data")
    pictures = load_pictures(data.manifests, "train", data.kinds)
    chosen_by = load_pictures(data.manifests, "validation", data.kinds)
    if settings.stopping.patience and not len(chosen_by):
        raise ConfigError(
            "no row has split validation, which early stopping needs (stopping.patience=0: never)"
        )
    batches = EpochBatches(
        pictures, settings, processes=arguments.world_size, rank=arguments.process_index
    )
    arguments.per_device_train_batch_size = batches.size
    arguments.per_device_eval_batch_size = batches.size
    if arguments.should_save:
        _describe(pictures, chosen_by, console)
    model = network.build(settings)
    if fresh and not settings.start.checkpoint:
        cooccurrence.start(model, pictures, settings, console)
    sets = {"train": pictures, "validation": chosen_by}
    glances = _look_at_all(model, sets, settings, run, console)
    if arguments.world_size > 1:
        network.synchronise_batch_norm(model, arguments.device)
    return GammaTrainer(
        model,
        arguments,
        settings,
        run,
        batches,
        TrainingCrops(pictures, settings),
        EvaluationCrops(chosen_by, settings) if len(chosen_by) else None,
        glances,
        console,
    )


def _look_at_all(
    model: GammaModel,
    sets: dict[str, Pictures],
    settings: Settings,
    run: Path,
    console: Console,
) -> dict[str, Glances]:
    """Compute what the tower says of all pictures of the run, by split; nothing without one."""
    if model.glance is None:
        return {}
    found = {}
    for split, pictures in sets.items():
        found[split] = Glances(run / GLANCES_FOLDER / split, pictures)
        with progress_bar(console, transient=True) as progress:
            bar = progress.add_task(f"glances, {split}", total=len(pictures))
            found[split].fill(
                model.glance, settings.data.max_pixels, partial(progress.advance, bar)
            )
    return found


def _conclude(trainer: GammaTrainer, flow: Flow) -> Result:
    return Result(
        "signal"
        if trainer.stop_requested
        else "early stopping"
        if flow.stopped_early
        else "epochs",
        trainer.state.global_step,
        max(accuracies(trainer.state), default=None),
        trainer.unreadable.total(),
    )


def _tensorboard(run: Path, last: Path | None) -> TensorBoardCallback:
    step = int(last.name.rpartition("-")[2]) if last else None
    writer = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=step)
    return TensorBoardCallback(writer)  # type: ignore[no-untyped-call]


def _open_run(settings: Settings, run: Path, console: Console) -> None:
    """Make the folder of a run, or clear what an earlier attempt left half-written."""
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


def _arguments(settings: Settings, run: Path) -> TrainingArguments:
    """Say to the library what it does itself; log, evaluation and checkpoints are `Flow`'s."""
    library_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    library_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    train = settings.train
    on_cpu = train.device == "cpu" or not torch.cuda.is_available()
    precision = train.precision
    if precision == "auto":
        precision = preferred_dtype(torch.device("cpu" if on_cpu else "cuda"))  # type: ignore[assignment]
    arguments = TrainingArguments(
        output_dir=str(run / UNFINISHED_FOLDER),
        use_cpu=on_cpu,
        bf16=precision == "bfloat16",
        seed=train.seed,
        num_train_epochs=train.epochs,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=settings.data.workers,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )
    if arguments.world_size == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs in one process would split the batch norm
    return arguments


@contextmanager
def _stop_on_signal(trainer: GammaTrainer) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the run after the step, with a checkpoint; again: at once."""

    def request(number: int, frame: FrameType | None) -> None:
        # Nothing is printed here: the signal may have interrupted a print.
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
