"""A scan on Ray Data: one actor per device, each with a partition at a time."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.command.console import console
from app.command.scan.places import BUCKET
from app.command.scan.plan import Model, Plan, prepare
from app.command.scan.progress import ProgressLine, Tally
from app.command.scan.scanner import Scanner
from app.command.scan.sources import Source
from app.contract.settings import Settings

_OBJECTS = 100 * 2**20  # bytes of Ray's shared memory, which carries only numbers of partitions
_POLL = 1.0  # s between two updates of the progress line
_SENT = (
    *("checkpoint", "device", "dtype", "max_batch", "max_tiles", "tile_budget"),
    *("max_pixels", "max_upload", "decode_threads"),
)
"""Settings that the actors get."""
_LOCAL_RAY = {
    # Without this, Ray listens on all addresses of this machine.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}
_QUIET_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


class ScanError(Exception):
    """A scan cannot start, or an actor cannot go on."""


@dataclass(frozen=True, slots=True)
class Resources:
    """How a scan uses the machines."""

    actors: int
    cpus: int
    """Cores of an actor."""
    gpus: int
    """1 if each actor has a GPU."""


def scan(
    source: str,
    out: str,
    settings: Settings,
    *,
    partition_size: int,
    actors: int | None = None,
    address: str | None = None,
    overwrite: bool = False,
) -> bool:
    """Score all pictures of a source that have no results yet.

    Args:
        source: Folder, `s3://BUCKET/PREFIX`, or list of paths (`.txt`, `.parquet`).
        out: Folder or `s3://BUCKET/PREFIX`.
        settings: Settings of this process.
        partition_size: Pictures per Parquet file.
        actors: Number of processes with a model; None: one per GPU, or one per machine.
        address: Address of a Ray cluster; None: Ray on this machine, for this scan alone.
        overwrite: Delete the results of another scan.

    Returns:
        False if the source has no pictures.

    Raises:
        ScanError: Ray or an actor failed; finished partitions are kept.
        SourceError: The source is not one of the three.
        PlanError: The target holds results of another scan.
        CheckpointError: The model cannot be loaded.
        OSError: Source or target cannot be used.
    """
    pictures = Source(source)
    url = out if out.startswith(BUCKET) else os.path.abspath(out)
    settings = settings.model_copy(update={"checkpoint": _absolute(settings.checkpoint)})
    _tell(f"listing {source}")
    plan = prepare(
        pictures,
        source,
        url,
        _model(settings),
        settings.default_view,
        partition_size,
        overwrite=overwrite,
    )
    if pictures.left_out:
        _tell(f"{pictures.left_out:,} files left out, not pictures by their names")
    if not plan.manifest.pictures:
        _tell(f"{source} contains no pictures")
        return False
    todo, failed = plan.unfinished(), 0
    if todo:
        try:
            with ray_running(address, actors, settings.device) as resources:
                failed = run(plan, todo, settings, resources)
        except (KeyboardInterrupt, ScanError):
            with suppress(Exception):  # such as an outage of the bucket, which is reported already
                plan.forget_attempts()
            raise
    count = sum(map(plan.size, todo))
    skipped = plan.manifest.pictures - count
    _tell(f"{count - failed:,} pictures scored, {failed:,} failed, {skipped:,} skipped: {out}")
    return True


def _tell(line: str) -> None:
    console(stderr=True).print(line, soft_wrap=True)


def _absolute(checkpoint: str | None) -> str | None:
    """A folder is the same in other processes."""
    return os.path.abspath(checkpoint) if checkpoint and os.path.isdir(checkpoint) else checkpoint


def _model(settings: Settings) -> Model:
    from model import checkpoint

    path = settings.checkpoint or checkpoint.BUILT_IN
    config = checkpoint.load(path).config
    return Model(config.name, config.version, checkpoint.digest(path))


@contextmanager
def ray_running(address: str | None, actors: int | None, device: str) -> Iterator[Resources]:
    """Connect to a cluster, or run Ray on this machine, on loopback and with a secret.

    Raises:
        ScanError: If Ray is not installed, does not start, or cannot be reached.
    """
    os.environ.update(_QUIET_RAY)
    if address is None:
        os.environ.update(_LOCAL_RAY, RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ScanError(f"gamma scan needs the extra `scan`: {error}") from error

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _private_folder() as folder:
        if address is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
            options |= {
                "num_cpus": max(cores or os.cpu_count() or 1, actors or 1),
                "include_dashboard": False,
                "object_store_memory": _OBJECTS,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": str(folder / "ray"),
            }
        try:
            ray.init(address or "local", **options)
        except Exception as error:  # Ray raises many kinds, also bare ones
            raise ScanError(
                f"Ray {'does not start' if address is None else 'is not reachable'}: {error}"
            ) from error
        try:
            alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
            nodes = [node["Resources"] for node in alive]
            yield resources_for(nodes, actors, device)
        finally:
            ray.shutdown()


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that only this user can enter, for Ray's sockets and logs."""
    folder = tempfile.mkdtemp(prefix="gamma-scan-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def resources_for(nodes: Sequence[dict[str, float]], actors: int | None, device: str) -> Resources:
    """Share machines out among actors.

    Args:
        nodes: Resources of each machine, as Ray names them.
        actors: Number of actors; None: one per GPU, or one per machine.
        device: The setting `device`.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if not device.startswith(("auto", "cuda")):
        gpus = 0
    needed = "GPU" if gpus else "CPU"
    fit = [node for node in nodes if node.get(needed)] or nodes  # not a head node without cores
    count = actors or gpus or len(fit)
    on_each = -(-count // len(fit))
    cpus = min(max(1, int(node.get("CPU", 1)) // on_each) for node in fit)
    return Resources(actors=count, cpus=cpus, gpus=1 if gpus else 0)


def run(plan: Plan, todo: Sequence[int], settings: Settings, resources: Resources) -> int:
    """Scan partitions, with a running Ray.

    Returns:
        How many of their pictures failed.

    Raises:
        ScanError: An actor cannot go on.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    tally = ray.remote(num_cpus=0)(Tally).remote()
    pictures = plan.manifest.pictures
    before = pictures - sum(map(plan.size, todo))
    given = settings.model_dump(include=set(_SENT))
    reserved: dict[str, Any] = {"num_cpus": resources.cpus}
    if resources.gpus:  # Ray shows each actor its own GPU alone, as the first
        reserved = {"num_gpus": resources.gpus}
        given["device"] = "cuda"
    partitions = ray.data.from_items(
        [{"partition": one} for one in todo], override_num_blocks=len(todo)
    ).map_batches(
        Scanner,
        fn_constructor_args=(plan, given, resources.cpus, _Reporter(tally)),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(resources.actors, len(todo))),
        **reserved,
    )
    with ProgressLine(pictures, before) as line, _following(tally, line):
        try:
            failed = 0
            for row in partitions.iter_rows():
                if row["error"]:
                    raise ScanError(row["error"])
                failed += row["failed"]
            return failed
        except ray.exceptions.RayError as error:
            raise ScanError(str(error)) from error


class _Reporter:
    """Sends the progress of partitions to the tally."""

    def __init__(self, tally: Any) -> None:
        self._tally = tally

    def __call__(self, partition: int, done: int, failed: int) -> None:
        self._tally.note.remote(partition, done, failed)


@contextmanager
def _following(tally: Any, line: ProgressLine) -> Iterator[None]:
    """Update the progress line in a thread."""
    import ray

    ended = threading.Event()

    def follow() -> None:
        with suppress(ray.exceptions.RayError):
            while not ended.wait(_POLL):
                line.show(*ray.get(tally.total.remote()))

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
