"""The commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.output import console, progress_bar

if TYPE_CHECKING:
    from training.config import Settings

_console = console(stderr=True, soft_wrap=True)
_SIGNALLED = 143  # what a process ended by SIGTERM returns

Config = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Settings (TOML), as in configs/.")
]
Data = Annotated[
    list[Path] | None,
    typer.Option("--data", exists=True, dir_okay=False, help="Manifest, instead of the file's."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting of the file."),
]


def fit(
    config: Config,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run.")],
    data: Data = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's last checkpoint, if any.")
    ] = False,
) -> None:
    """Train a model; under torchrun the processes share each batch.

    SIGTERM and Ctrl-C end it after the step, with a checkpoint (exit code 143).
    """
    settings = _settings(config, data, sets)

    from training.fitting.checkpoints import MODEL_FOLDER
    from training.fitting.fit import fit as train

    result = train(settings, out, resume=resume, console=_console)
    best = result.best_accuracy
    _console.print(
        f"ended by {result.ending} at step {result.step:,}"
        + ("" if best is None else f", best validation accuracy {best:.4f}")
        + (f", {result.unreadable} unreadable pictures replaced" if result.unreadable else "")
    )
    if not result.finished:
        _console.print(f"go on with: gamma-train fit {out / 'config.toml'} --out {out} --resume")
        raise typer.Exit(_SIGNALLED)
    typer.echo(out / MODEL_FOLDER)


def glance(
    config: Config,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of features and model.")],
    data: Data = None,
    sets: Sets = None,
    folds: Annotated[
        int, typer.Option(min=0, help="Parts of the sources to leave out in turn; 0: none.")
    ] = 8,
) -> None:
    """Fit the glance (model.prior) to whole pictures, before the rest of the network is trained.

    The features of the frozen tower are kept in OUT/features: run it again to go on, or to fit
    anew in minutes. Continue with `fit --set start.checkpoint=OUT/model`.
    """
    settings = _settings(config, data, sets)

    from model import checkpoint
    from training.config import ConfigError
    from training.fitting import glance as glances
    from training.fitting.checkpoints import MODEL_FOLDER
    from training.fitting.network import build

    model = build(settings)
    if model.glance is None:
        raise ConfigError("model.prior: there is none to fit")
    rows = glances.read_rows(settings.data.manifests)
    with progress_bar(_console, transient=True) as progress:
        bar = progress.add_task("features", total=len(rows))
        features = glances.extract(
            model.glance,
            rows,
            settings.glance,
            out / "features",
            lambda: progress.advance(bar),
        )
    if folds:
        auc, results = glances.leave_sources_out(
            lambda: build(settings), features, settings.glance, folds
        )
        for line in glances.describe(auc, results):
            _console.print(line)
    glances.fit(model, features, glances.weigh(features, features.train), settings.glance)
    checkpoint.save(model, out / MODEL_FOLDER)
    typer.echo(out / MODEL_FOLDER)


def ablate(
    config: Config,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the runs and tables.")],
    data: Data = None,
    sets: Sets = None,
    tables: Annotated[str, typer.Option(help="Tables of the paper, 4 to 8.")] = "8,4,6,5,7",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every row.")] = 1,
    measure: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Manifest to measure on [default: --data]"),
    ] = None,
    split: Annotated[str, typer.Option(help="Rows to measure on.")] = "validation",
) -> None:
    """Train the rows of the paper's ablations and set them beside its numbers.

    Run it again to go on: what is done stays done.
    """
    from training.config import ConfigError

    try:
        numbers = [int(table) for table in tables.split(",")]
    except ValueError as error:
        raise ConfigError(f"--tables {tables}: must be numbers with commas between") from error
    settings = _settings(config, data, sets)

    from training.fitting import ablate as ablations

    measured = measure or [Path(name) for name in settings.data.manifests]
    if not ablations.ablate(settings, numbers, seeds, out, measured, split, _console):
        _console.print("stopped; run the same command to go on")
        raise typer.Exit(_SIGNALLED)
    typer.echo(out / ablations.MARKDOWN_FILE)


def _settings(config: Path, data: list[Path] | None, sets: list[str] | None) -> Settings:
    from training.config import load

    manifests = [str(file.resolve()) for file in data or ()]
    return load(config, [*([f"data.manifests={manifests}"] if manifests else []), *(sets or [])])
