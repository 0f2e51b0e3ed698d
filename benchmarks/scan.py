"""`gamma scan`: pictures per core compared with the worker, and two actors compared with one.

    python -m benchmarks.scan

Ratios are from one run on one machine. The network is small, so that the overhead of Ray counts
more than with a real one.
"""

import argparse
import contextlib
import os
import platform
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from app.command.scan import run
from app.command.scan.plan import part, prepare
from app.command.scan.run import Resources, ray_running
from app.command.scan.sources import Source
from app.contract.settings import Settings
from benchmarks.support import encode, photo
from benchmarks.worker import Front, redis_server, verdict
from model.config import GammaConfig
from model.network import GammaModel
from pictures.decoders import Decoders
from worker.main import load_detector
from worker.pipeline import Pipeline
from worker.processing import Processor, describe

CORE_BAR = 0.9  # pictures per second of CPU time, relative to the worker
SCALE_BAR = 1.8  # pictures per second of two actors, relative to one
_PARTITION = 16
_POLL = 0.05  # s
_SIDE = 256  # pixels of a picture, and of a crop


class Speed(NamedTuple):
    """What one run achieved."""

    rate: float
    """Pictures per second."""
    per_core: float
    """Pictures per second of CPU time of the processes that decode and compute."""
    others: float
    """Cores that all other processes used: Ray's, and the one that waits for the results."""


def work() -> tuple[float, float]:
    """CPU time of the processes with a model and their decoders, and of all others, s."""
    this = psutil.Process()
    spent: dict[int, float] = {}
    scoring: set[int] = set()
    for process in [this, *this.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            spent[process.pid] = sum(process.cpu_times()[:2])
            if "ray::MapWorker" in " ".join(process.cmdline()):
                scoring |= {one.pid for one in [process, *process.children(recursive=True)]}
    mine = sum(seconds for pid, seconds in spent.items() if pid in scoring)
    return mine, sum(spent.values()) - mine


def of_worker(settings: Settings, folder: Path) -> Speed:
    """Measure the worker's pipeline, from Redis to the records and masks."""
    detector = load_detector(settings)
    detector.warm_up()
    done = threading.Semaphore(0)
    decoders = Decoders(settings.decode_threads, max_pixels=settings.max_pixels)
    with redis_server() as url:
        front = Front(url)
        names = [front.submit(file.read_bytes()) for file in sorted(folder.iterdir())]
        pipeline = Pipeline(
            Processor(detector, describe(detector, "benchmark"), front.store, decoders),
            max_batch=settings.max_batch,
            window=0,
            threads=settings.decode_threads,
            deliver=lambda results: done.release(len(results)),
            give_up=lambda error: os.abort(),
        )
        pipeline.feed(names[:_PARTITION])
        for _ in range(_PARTITION):
            done.acquire()
        started, before = time.perf_counter(), sum(work())
        for start in range(_PARTITION, len(names), _PARTITION):
            pipeline.feed(names[start : start + _PARTITION])
        for _ in range(len(names) - _PARTITION):
            done.acquire()
        seconds, spent = time.perf_counter() - started, sum(work()) - before
        pipeline.close()
    decoders.close()
    count = len(names) - _PARTITION
    return Speed(count / seconds, count / spent, 0.0)


def of_scan(settings: Settings, folder: Path, out: Path, actors: int) -> Speed:
    """Measure a scan from the first finished partition of each actor to the last."""
    given = {"view": settings.default_view, "partition_size": _PARTITION}
    model = run._model(settings)
    plan = prepare(Source(str(folder)), str(folder), str(out), model, **given)
    marks: list[tuple[int, float, tuple[float, float]]] = []

    def watch() -> None:
        for wanted in (actors, plan.partitions):
            while (found := sum(plan.target.has(part(k)) for k in range(plan.partitions))) < wanted:
                time.sleep(_POLL)
            marks.append((found, time.perf_counter(), work()))

    thread = threading.Thread(target=watch)
    thread.start()
    run.run(plan, plan.unfinished(), settings, Resources(actors, 1, 0))
    thread.join()
    (first, began, before), (last, ended, after) = marks
    count, seconds = (last - first) * _PARTITION, ended - began
    scoring, others = (late - early for early, late in zip(before, after, strict=True))
    return Speed(count / seconds, count / scoring, others / seconds)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=320, help="a multiple of 16")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as an actor with one core
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, Ray {version('ray')}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch, "in"), Path(scratch, "model")
        folder.mkdir()
        for number in range(options.pictures):
            file = folder / f"{number:05}.jpg"
            file.write_bytes(encode(photo(_SIDE, _SIDE, number)))
        torch.manual_seed(0)
        small = {"backbone": "mit_b0", "decoder_channels": 32, "output_channels": 24}
        GammaModel(GammaConfig(**small, crop_size=_SIDE)).save_pretrained(model)
        settings = Settings(
            checkpoint=str(model), device="cpu", default_view="center", max_pixels=10**8
        )
        worker = of_worker(settings, folder)
        with ray_running(None, 2, "cpu"):
            one = of_scan(settings, folder, Path(scratch, "one"), 1)
            two = of_scan(settings, folder, Path(scratch, "two"), 2)
        again = of_worker(settings, folder)
    rows = {"worker": worker, "scan, 1 actor": one, "scan, 2 actors": two, "worker again": again}
    for name, speed in rows.items():
        print(
            f"  {name:15} {speed.rate:7.1f} pictures/s, {speed.per_core:7.1f} per second of CPU "
            f"time; other processes {speed.others:.2f} cores"
        )
    best = max(worker.per_core, again.per_core)
    verdict("  per second of CPU time, scan to worker", one.per_core / best, CORE_BAR)
    verdict("  pictures/s, 2 actors to 1", two.rate / one.rate, SCALE_BAR)


if __name__ == "__main__":
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    main()
