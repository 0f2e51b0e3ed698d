"""Commands that train: `fit`, `glance` and `ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.output import console, progress_bar

if TYPE_CHECKING:
    from model.network import GammaModel
    from training.config import Settings

_console = console(stderr=True, soft_wrap=True)
_SIGNALLED = 143  # exit code of a process ended by SIGTERM

Config = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Settings file (TOML), see configs/.")
]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        exists=True,
        dir_okay=False,
        help="Manifest, in place of data.manifests; repeatable.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Override a setting of the file; repeatable."
    ),
]


def fit(
    config: Config,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run.")],
    data: Data = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the last checkpoint, if any.")
    ] = False,
) -> None:
    """Train a model. Under torchrun the processes share each batch.

    SIGTERM and Ctrl-C stop it after the current step, with a checkpoint (exit code 143).
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
        _console.print(f"resume with: gamma-train fit {out / 'config.toml'} --out {out} --resume")
        raise typer.Exit(_SIGNALLED)
    typer.echo(out / MODEL_FOLDER)


def glance(
    config: Config,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for features and model.")],
    data: Data = None,
    sets: Sets = None,
    folds: Annotated[
        int, typer.Option(min=0, help="Folds of the cross-validation by source; 0: none.")
    ] = 8,
) -> None:
    """Fit the glance (model.prior) to whole pictures, before `fit` trains the rest of the network.

    The features of the frozen tower are cached in OUT/features: an interrupted run continues, and
    another fit takes minutes. Then run `fit --set start.checkpoint=OUT/model`. If start.checkpoint
    is set, only its glance is replaced: the classifier keeps its weights.
    """
    settings = _settings(config, data, sets)

    from model import checkpoint
    from training.config import ConfigError
    from training.fitting import glance as glances
    from training.fitting.checkpoints import MODEL_FOLDER
    from training.fitting.network import build

    def new() -> GammaModel:
        model = build(settings).requires_grad_(True)  # `start.frozen` is for `fit`
        model.classifier.requires_grad_(not settings.start.checkpoint)
        return model

    model = new()
    if model.glance is None:
        raise ConfigError("model.prior: none; the glance needs a prior")
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
        auc, results = glances.leave_sources_out(new, features, settings.glance, folds)
        for line in glances.describe(auc, results):
            _console.print(line)
    weights = glances.weigh(features, features.train, settings.glance.copy_weight)
    glances.fit(model, features, weights, settings.glance)
    checkpoint.save(model, out / MODEL_FOLDER)
    typer.echo(out / MODEL_FOLDER)


def ablate(
    config: Config,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for runs and tables.")],
    data: Data = None,
    sets: Sets = None,
    tables: Annotated[str, typer.Option(help="Tables of the paper, 4 to 8.")] = "8,4,6,5,7",
    seeds: Annotated[int, typer.Option(min=1, help="Runs per row, with different seeds.")] = 1,
    measure: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Manifest to evaluate on [default: --data]"),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "validation",
) -> None:
    """Train the rows of the paper's ablation tables and compare with its numbers.

    Run the same command again to continue after an interruption.
    """
    from training.config import ConfigError

    try:
        numbers = [int(table) for table in tables.split(",")]
    except ValueError as error:
        raise ConfigError(f"--tables {tables}: must be numbers separated by commas") from error
    settings = _settings(config, data, sets)

    from training.fitting import ablate as ablations

    measured = measure or [Path(name) for name in settings.data.manifests]
    if not ablations.ablate(settings, numbers, seeds, out, measured, split, _console):
        _console.print("stopped; run the same command again to continue")
        raise typer.Exit(_SIGNALLED)
    typer.echo(out / ablations.MARKDOWN_FILE)


def _settings(config: Path, data: list[Path] | None, sets: list[str] | None) -> Settings:
    from training.config import load

    manifests = [str(file.resolve()) for file in data or ()]
    return load(config, [*([f"data.manifests={manifests}"] if manifests else []), *(sets or [])])
