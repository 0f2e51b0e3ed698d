"""The `gamma` command."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ByteSize, ValidationError

from app.command import logs
from app.command.console import complain, console
from app.contract.environment import suggestion
from app.contract.settings import Settings, SettingsFileError, UnknownSettingError
from pictures.findings import MAX_FRAMES

app = typer.Typer(
    help="GAMMA: was this picture, or a part of it, made by a neural network?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would read `[default: …]` as markup
)
_INTERRUPTED = 130  # exit code of a process that Ctrl-C ended


def _variable(setting: str) -> str:
    return f"GAMMA_{setting.upper()}"


def _option(setting: str, *names: str) -> Any:
    """An option that overrides a setting; its help is the description of the setting."""
    field = Settings.model_fields[setting]
    default = "" if field.default is None else f" [default: {field.default}]"
    flag = names or (f"--{setting.replace('_', '-')}",)
    return typer.Option(*flag, help=f"{field.description}{default} ({_variable(setting)})")


Host = Annotated[str | None, _option("host")]
Port = Annotated[int | None, _option("port")]
RootPath = Annotated[str | None, _option("root_path")]
DataDir = Annotated[Path | None, _option("data_dir")]
MetricsPort = Annotated[int | None, _option("metrics_port")]
AllowAnonymous = Annotated[bool | None, _option("allow_anonymous", "--allow-anonymous")]
Checkpoint = Annotated[str | None, _option("checkpoint")]
Device = Annotated[str | None, _option("device")]


def _settings(**command_line: Any) -> Settings:
    """Load the settings; if they are invalid, print one line per problem and exit with code 2."""
    try:
        settings = Settings.load(**command_line)
    except ValidationError as error:
        for found in error.errors():
            name = ".".join(str(part) for part in found["loc"])
            reason = found["msg"].removeprefix("Value error, ")
            if found["type"] == "extra_forbidden":
                reason = f"unknown setting{suggestion(name, Settings.model_fields)}"
            complain(f"setting {name}", reason)
        raise typer.Exit(2) from None
    except (SettingsFileError, UnknownSettingError) as error:
        for line in str(error).splitlines():
            complain("settings", line)
        raise typer.Exit(2) from None
    logs.configure(settings)
    return settings


@contextmanager
def _importing() -> Iterator[None]:
    """Pause the garbage collector: it finds nothing in imports and takes up to a sixth of them."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _fail(error: Exception) -> typer.Exit:
    complain("gamma", error)
    return typer.Exit(1)


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    root_path: RootPath = None,
    data_dir: DataDir = None,
    metrics_port: MetricsPort = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
    allow_anonymous: AllowAnonymous = None,
) -> None:
    """Run everything: a private Redis (unless GAMMA_REDIS_URL is set), workers, API and page."""
    from app.command.embedded import PrivateRedisError
    from app.command.supervisor import StartError
    from app.command.supervisor import serve as supervise
    from app.contract.ports import PortError
    from app.http.binding import OpenBindError, check_binding

    given = {
        "host": host,
        "port": port,
        "root_path": root_path,
        "data_dir": data_dir,
        "metrics_port": metrics_port,
        "checkpoint": checkpoint,
        "device": device,
        "allow_anonymous": allow_anonymous,
    }
    settings = _settings(**given)
    environment = {
        _variable(name): str(value) for name, value in given.items() if value is not None
    }
    try:
        check_binding(settings)
        supervise(
            settings,
            environment,
            lambda url: print(f"GAMMA is ready on {url} (Ctrl-C stops it)", flush=True),
        )
    except (OpenBindError, PortError, PrivateRedisError, StartError) as error:
        raise _fail(error) from None


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    root_path: RootPath = None,
    metrics_port: MetricsPort = None,
    allow_anonymous: AllowAnonymous = None,
) -> None:
    """Run the HTTP API and the page; needs a running Redis, and workers."""
    with _importing():
        from app.command.spans import SpanExportError, exporting
        from app.contract.blobs import StorageSetupError
        from app.contract.directory import CallersFileError
        from app.contract.settings import RedisUrlMissingError
        from app.http.binding import OpenBindError
        from app.http.server import run
        from app.reviews.database import DatabaseUrlError

    settings = _settings(
        host=host,
        port=port,
        root_path=root_path,
        metrics_port=metrics_port,
        allow_anonymous=allow_anonymous,
    )
    try:
        with exporting("api"):
            run(settings)
    except (
        SpanExportError,
        OpenBindError,
        RedisUrlMissingError,
        CallersFileError,
        StorageSetupError,
        DatabaseUrlError,
        OSError,
    ) as error:
        raise _fail(error) from None


@app.command()
def worker(
    metrics_port: MetricsPort = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
    burst: Annotated[bool, typer.Option("--burst", help="Exit when the queue is empty.")] = False,
) -> None:
    """Run one worker, which takes jobs from Redis and runs the model on one device."""
    with _importing():
        from redis.exceptions import RedisError

        from app.command.spans import SpanExportError, exporting
        from app.contract.blobs import StorageSetupError
        from app.contract.settings import RedisUrlMissingError
        from model.canary import ModelSickError
        from model.checkpoint import CheckpointError
        from model.engine import DeviceError
        from worker.main import run
        from worker.provenance import TrustListError

    settings = _settings(metrics_port=metrics_port, checkpoint=checkpoint, device=device)
    try:
        with exporting("worker"):
            run(settings, burst=burst)
    except (
        SpanExportError,
        RedisUrlMissingError,
        StorageSetupError,
        TrustListError,
        CheckpointError,
        ModelSickError,
        DeviceError,
        RedisError,
        OSError,
    ) as error:
        raise _fail(error) from None


@app.command()
def webhooks(metrics_port: MetricsPort = None) -> None:
    """Deliver webhooks; one process is enough, several share the work."""
    from redis.exceptions import RedisError

    from app.command.spans import SpanExportError, exporting
    from app.contract.directory import CallersFileError
    from app.contract.settings import RedisUrlMissingError
    from app.webhooks.delivery import WebhooksOffError
    from app.webhooks.worker import WorkerStoppedError, run

    settings = _settings(metrics_port=metrics_port)
    try:
        with exporting("webhooks"):
            run(settings)
    except (
        SpanExportError,
        WebhooksOffError,
        CallersFileError,
        WorkerStoppedError,
        RedisUrlMissingError,
        RedisError,
        OSError,
    ) as error:
        raise _fail(error) from None


@app.command()
def detect(
    files: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    overlays: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Write both heat maps of each picture to this folder, with the subfolders of the "
            "pictures; existing files are not replaced.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Write the results to this file, as --json prints them. Repeat the command to "
            "resume; pictures without a score are tried again.",
        ),
    ] = None,
    view: Annotated[str | None, _option("default_view", "--view")] = None,
    frames: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_FRAMES,
            help="Maximum number of frames of an animation, or pages of a TIFF, to examine.",
        ),
    ] = 1,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Score pictures locally, without the service and Redis.

    The exit code is 1 if a picture has no score or a folder contains no pictures.
    """
    with _importing():
        from app.command.detect import Format, detect_files
        from app.command.scores import ScoresError
        from model.canary import ModelSickError
        from model.checkpoint import CheckpointError
        from model.engine import DeviceError
        from worker.provenance import TrustListError

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv are mutually exclusive")
    if as_csv and output is not None:
        raise typer.BadParameter("--output writes JSON lines, not --csv")
    if overlays is not None and overlays.resolve() in {file.resolve() for file in files}:
        raise typer.BadParameter("--overlays must not be a folder that is searched for pictures")
    settings = _settings(checkpoint=checkpoint, device=device, default_view=view)
    printed = Format.JSON if as_json else Format.CSV if as_csv else Format.TABLE
    try:
        printed = printed if output is None else Format.NOTHING
        fine = detect_files(files, settings, printed, overlays, output, frames)
    except (
        CheckpointError,
        DeviceError,
        ModelSickError,
        ScoresError,
        TrustListError,
        OSError,
    ) as error:
        raise _fail(error) from None
    except KeyboardInterrupt:
        if output is not None:
            console(stderr=True).print("interrupted; run the same command to resume")
        raise typer.Exit(_INTERRUPTED) from None
    if not fine:
        raise typer.Exit(1)


@app.command()
def scan(
    source: Annotated[
        str,
        typer.Argument(help="Folder, s3://BUCKET/PREFIX, or list of paths (.txt, .parquet)."),
    ],
    out: Annotated[
        str, typer.Option(help="Folder or s3://BUCKET/PREFIX for the results, as Parquet files.")
    ],
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Number of models at work [default: one per GPU or machine]."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster [default: this machine alone]."),
    ] = None,
    partition_size: Annotated[
        int, typer.Option(min=1, help="Pictures per Parquet file.", show_default=True)
    ] = 1000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the results of another scan in OUT.")
    ] = False,
    view: Annotated[str | None, _option("default_view", "--view")] = None,
    checkpoint: Checkpoint = None,
    device: Device = None,
) -> None:
    """Score millions of pictures with Ray; repeat the command to resume.

    The exit code is 1 if there are no pictures.
    """
    with _importing():
        from app.command.scan.plan import PlanError
        from app.command.scan.run import ScanError
        from app.command.scan.run import scan as run_scan
        from app.command.scan.sources import SourceError
        from model.checkpoint import CheckpointError

    settings = _settings(checkpoint=checkpoint, device=device, default_view=view)
    try:
        found = run_scan(
            source,
            out,
            settings,
            partition_size=partition_size,
            actors=actors,
            address=address,
            overwrite=overwrite,
        )
    except (ScanError, SourceError, PlanError, CheckpointError, ImportError, OSError) as error:
        raise _fail(error) from None
    except KeyboardInterrupt:
        console(stderr=True).print("interrupted; run the same command to resume")
        raise typer.Exit(_INTERRUPTED) from None
    if not found:
        raise typer.Exit(1)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the API."""
    from app.http.api import documented

    print(json.dumps(documented().openapi(), indent=2, ensure_ascii=False))


@app.command(name="settings")
def print_settings() -> None:
    """Print every setting, its default and its meaning as a Markdown table."""
    print("| variable | default | meaning |\n|---|---|---|")
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, ByteSize):
            default = default.human_readable()
        shown = "—" if default is None else f"`{default}`"
        print(f"| `{_variable(name)}` | {shown} | {field.description} |")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check settings, Redis, storage, model and ports, and print what to fix."""
    from app.command.doctor import examine

    if not examine(_settings(), as_json=as_json):
        raise typer.Exit(1)
