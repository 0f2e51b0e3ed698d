"""Commands that evaluate, calibrate and export checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from pictures.findings import Thresholds, View
from training.data import manifest
from training.data.changes import Format
from training.errors import UserError
from training.measuring.suites import check_sizes, load_sets
from training.output import progress_bar, write_text

if TYPE_CHECKING:
    from model.network import GammaModel
    from training.measuring.card import RunFacts

_Report = TypeVar("_Report", bound=BaseModel)

Source = Annotated[str, typer.Argument(help="Run, checkpoint directory or hub id.")]
Sets = Annotated[
    list[Path], typer.Argument(help="Manifests, or suites (TOML files that list manifests).")
]
Out = Annotated[Path, typer.Option(help="Folder for results; an interrupted run continues.")]
Split = Annotated[
    Literal["train", "validation", "test"],
    typer.Option(help="Split to use; a manifest without splits is used whole."),
]
Look = Annotated[
    Literal["center", "tiled", "auto"],
    typer.Option(help="center: the paper's protocol; auto: the whole picture, as served."),
]
Crop = Annotated[
    int | None,
    typer.Option(help="Crop every picture to its central N x N pixels first.", min=1),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--tile-budget", help="Tiles of a picture in the view auto [default: by device]", min=1
    ),
]
Modes = Annotated[
    list[Format] | None, typer.Option("--format", help="Format mode, repeatable [default: all]")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]


def evaluate(
    checkpoint: Source,
    sets: Sets,
    out: Out,
    view: Look = "center",
    split: Split = "test",
    crop: Crop = None,
    tile_budget: Budget = None,
    modes: Modes = None,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.", min=0)] = 1000,
    degraded: Annotated[
        Path | None, typer.Option(help="Manifest for an additional `robustness` run.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Evaluate a model on sets of pictures in three format modes, next to the paper's numbers."""
    from training.measuring.evaluate import changes_of
    from training.measuring.evaluate import evaluate as measure
    from training.measuring.report import to_markdown

    given = (checkpoint, sets, out, view, split, crop, device, tile_budget)
    formats = tuple(Format) if modes is None else tuple(modes)
    summary = _measure(
        measure, len(changes_of(formats)), *given, resamples=resamples, modes=formats
    )
    _write(summary, to_markdown(summary), out / "summary")
    print(f"Written to {out}: summary.md, summary.json, pictures.parquet, plots (*.png)")
    if degraded is not None:
        robustness(checkpoint, [degraded], out / "robustness", view, split, crop, device)


def robustness(
    checkpoint: Source,
    sets: Sets,
    out: Out,
    view: Look = "center",
    split: Split = "test",
    crop: Crop = None,
    device: Device = "auto",
) -> None:
    """Evaluate a model under JPEG, WebP, blur, noise, resizing, crops and screenshots."""
    from training.data.changes import DEGRADATIONS
    from training.measuring.robustness import measure_robustness, to_markdown

    passes = 1 + sum(len(levels) for levels in DEGRADATIONS.values())
    given = (checkpoint, sets, out, view, split, crop, device)
    report = _measure(measure_robustness, passes, *given)
    _write(report, to_markdown(report), out / "robustness")
    print(f"Written to {out}: robustness.md, .json, .png, pictures.parquet")


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Run or checkpoint directory.", exists=True)],
    sets: Sets,
    view: Look = "auto",
    crop_size: Annotated[
        int | None,
        typer.Option(help="Crop size of the service, if it differs from training.", min=32),
    ] = None,
    part_gain: Annotated[
        float | None,
        typer.Option(help="Weight of a tile's own logit in its AI mask [default: as stored]"),
    ] = None,
    tile_budget: Budget = None,
    device: Device = "auto",
) -> None:
    """Choose temperature, pooling and thresholds on validation pictures and store them."""
    from model.checkpoint import CANARY_FILE
    from training.config import ConfigError
    from training.data.changes import RAW
    from training.measuring.calibrate import calibrate as choose
    from training.measuring.calibrate import gather
    from training.measuring.calibration_report import describe, store
    from training.measuring.export import checkpoint_of, write_canary
    from training.measuring.scores import Job, fingerprint, make_detector

    chosen = load_sets(sets, "validation")
    directory = checkpoint_of(checkpoint)
    model = _load(str(directory))
    config = model.config
    config.mask_offsets, config.whole_offset = {}, None
    if part_gain is not None:
        config.part_gain = part_gain
    if crop_size is not None:
        if crop_size % 32:
            raise ConfigError(f"--crop-size {crop_size}: must be a multiple of 32")
        config.crop_size = crop_size
    kept = directory / f"scores-{fingerprint(model, view, device, tile_budget)}.jsonl"
    jobs = [Job(s.name, row, s.folder, RAW) for s in chosen for row in s.rows]
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(jobs))
        samples = gather(
            make_detector(model, device=device, tile_budget=tile_budget),
            jobs,
            View(view),
            kept,
            lambda: bar.advance(task),
        )
    calibration = choose(
        samples,
        view=View(view),
        pooling=config.pooling,
        part_offset=config.part_offset,
        temperature=config.temperature,
        thresholds=Thresholds(**config.thresholds),
    )
    store(calibration, directory, crop_size=config.crop_size, part_gain=config.part_gain)
    if (directory / CANARY_FILE).is_file():
        write_canary(directory)
    kept.unlink()
    print(describe(calibration))
    print(f"Written to {directory}: config.json, calibration.json")


def export(
    run: Annotated[Path, typer.Argument(help="Run or checkpoint directory.", exists=True)],
    out: Annotated[Path, typer.Argument(help="Directory to create.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="summary.json of `evaluate`, for the card.", dir_okay=False)
    ] = None,
    robust: Annotated[
        Path | None,
        typer.Option(
            "--robustness", help="robustness.json of `robustness`, for the card.", dir_okay=False
        ),
    ] = None,
    data_note: Annotated[
        Path | None,
        typer.Option(help="Markdown on the data's sources and licences, for the card."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the weights if none is inherited, e.g. apache-2.0."),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="[default: the run's version + a digest]")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store large tensors in float16.")] = False,
    check: Annotated[
        list[Path] | None,
        typer.Option(help="Manifest of pictures to check --half with."),
    ] = None,
    push: Annotated[str | None, typer.Option(help="Upload to this hub repository.")] = None,
) -> None:
    """Write a checkpoint for the service, with a model card."""
    from training.measuring.export import checkpoint_of
    from training.measuring.export import export as write
    from training.measuring.export import push as upload

    written = write(
        checkpoint_of(run),
        out,
        _facts(run, evaluation, robust, data_note, licence),
        version=version,
        half=half,
        check=load_sets(check or [], "validation"),
    )
    if written.largest_difference is not None:
        print(f"Half precision changes a probability by at most {written.largest_difference:.5f}")
    print(f"Written to {out}: version {written.version}, {written.size / 1e6:.1f} MB of weights")
    print(f"Serve it: gamma serve --checkpoint {out}")
    if push is not None:
        print(f"Uploaded to {upload(out, push)}")


def _measure(
    measure: Callable[..., _Report],
    passes: int,
    checkpoint: Source,
    sets: Sets,
    out: Out,
    view: Look,
    split: Split,
    crop: Crop,
    device: Device,
    tile_budget: int | None = None,
    **options: Any,
) -> _Report:
    """Score every picture `passes` times, with a progress bar; scores in `out` are reused."""
    from training.measuring.scores import fingerprint, make_detector

    chosen = load_sets(sets, split)
    check_sizes(chosen, crop)
    model = _load(checkpoint)
    settings = (view, crop, device) if tile_budget is None else (view, crop, device, tile_budget)
    kept = out / "scores" / f"{fingerprint(model, *settings)}.jsonl"
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=passes * sum(len(s.rows) for s in chosen))
        return measure(
            make_detector(model, device=device, tile_budget=tile_budget),
            chosen,
            out,
            kept,
            checkpoint=checkpoint,
            view=View(view),
            crop=crop,
            advance=lambda: bar.advance(task),
            **options,
        )


def _write(report: BaseModel, text: str, stem: Path) -> None:
    """Write a report as JSON and Markdown, and print the latter."""
    write_text(report.model_dump_json(indent=2) + "\n", stem.with_suffix(".json"))
    write_text(text, stem.with_suffix(".md"))
    print(text)


def _load(source: str) -> GammaModel:
    """Load the checkpoint of a run, of a directory or from the hub."""
    from model import checkpoint
    from training.measuring.export import checkpoint_of

    return checkpoint.load(checkpoint_of(Path(source)) if Path(source).is_dir() else source)


def _facts(
    run: Path,
    evaluation: Path | None,
    robust: Path | None,
    data_note: Path | None,
    licence: str | None,
) -> RunFacts:
    """Collect the facts for the model card."""
    from training import config
    from training.measuring.calibration_report import REPORT_FILE, Calibration
    from training.measuring.card import RunFacts
    from training.measuring.evaluate import Summary
    from training.measuring.export import checkpoint_of
    from training.measuring.robustness import Robustness

    summary = _read_report(evaluation, Summary)
    if summary is not None and Format.JPEG96 not in summary.formats:
        raise UserError(f"{evaluation}: the card needs the format mode {Format.JPEG96}")
    settings_file, report = run / "config.toml", checkpoint_of(run) / REPORT_FILE
    settings = config.load(settings_file) if settings_file.is_file() else None
    files = [Path(name) for name in settings.data.manifests] if settings is not None else []
    return RunFacts(
        settings=settings,
        rows=[row for file in files for row in manifest.read(file)],
        data_note=None if data_note is None else data_note.read_text(encoding="utf-8").strip(),
        licence=licence,
        calibration=_read_report(report if report.is_file() else None, Calibration),
        evaluation=summary,
        robustness=_read_report(robust, Robustness),
    )


def _read_report(file: Path | None, kind: type[_Report]) -> _Report | None:
    """Read a report that another command wrote."""
    if file is None:
        return None
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: not the expected report: {place}: {first['msg']}") from error
