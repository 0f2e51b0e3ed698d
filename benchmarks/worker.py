"""The batch worker: overhead, comparison with stock RQ, behaviour under load, memory.

    python -m benchmarks.worker                  # all four parts
    python -m benchmarks.worker jobs --jobs 300  # one of: pipeline, jobs, load, memory

Ratios are from one run on one machine; compared variants run in turn.
"""

import argparse
import contextlib
import os
import platform
import statistics
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from redis.connection import UnixDomainSocketConnection
from rq import Queue, SimpleWorker, Worker, get_current_job
from rq.serializers import JSONSerializer

from app.command.embedded import private_redis
from app.contract.client import connect
from app.contract.jobs import JobQueue
from app.contract.schemas import Status
from app.contract.settings import Settings
from app.contract.store import Store
from app.contract.submission import Submission
from app.http.service import Service
from app.http.waiting import FinishedEvents
from benchmarks.support import encode, photo
from model import views
from model.config import GammaConfig
from model.detector import Detector, Part
from model.engine import CropOutputs
from model.network import GammaModel
from pictures.decoders import Decoders
from pictures.findings import View
from worker.batch_worker import BatchWorker, worker_name
from worker.pipeline import Pipeline
from worker.processing import DecodedPicture, Outcome, Processor, ReadyFrame, describe

PIPELINE_BAR = 0.95  # relative to the crops/s of a bare loop
SPEED_BAR = 10.0  # relative to the jobs/s of SimpleWorker
TRIPS_BAR = 3.0  # Redis round trips per job
_FINAL_TIMEOUT = 600  # s


class CountingConnection(UnixDomainSocketConnection):
    """Connection that counts round trips."""

    sent = 0

    def send_packed_command(self, *args, **kwargs):
        """Count and send a command or pipeline."""
        type(self).sent += 1
        return super().send_packed_command(*args, **kwargs)


_NOTHING = views.cut(np.zeros((64, 64, 3), np.uint8), views.View.CENTER, 64, 1)


class NoModel(Processor):
    """Processor without decoding and model; everything else is real."""

    def decode(self, record, picture):
        """Return a ready detection."""
        return DecodedPicture(record, [ReadyFrame(1, 0, _NOTHING)], 0.0, 0.0)

    def forward(self, work):
        """Return empty outputs."""
        return [CropOutputs(*[torch.zeros(1)] * 3)] * len(work), 0.0

    def conclude(self, ready):
        """Return the record as succeeded."""
        return Outcome(ready.detection.model_copy(update={"status": Status.SUCCEEDED}))


class SlowModel(Detector):
    """Detector with a simulated network that takes a fixed time."""

    def __init__(self, seconds: float) -> None:
        self.sizes: list[int] = []
        real = Detector.from_pretrained(None, device="cpu", max_pixels=10**8, max_tiles=64)
        self.__dict__.update(real.__dict__)
        self._seconds = seconds

    def look(self, pictures):
        """Return no glances."""
        return [None] * len(pictures)

    def forward(self, parts):
        """Sleep a fixed time for any batch size."""
        counts = [len(part.crops.tiles[part.start : part.stop]) for part in parts]
        self.sizes.append(sum(counts))
        time.sleep(self._seconds)
        masks = [torch.zeros(count, 128, 128) for count in counts]
        return [CropOutputs(torch.zeros(len(mask)), mask, mask) for mask in masks]


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a private Redis."""
    with (
        tempfile.TemporaryDirectory() as folder,
        private_redis(Path(folder), 4 * 2**30) as (url, _),
    ):
        yield url


class Front:
    """Client side of the queue."""

    def __init__(self, url: str) -> None:
        self.redis = connect(url)
        settings = Settings(redis_url=url, cache=False)
        self.store = Store(self.redis)
        jobs = JobQueue(self.redis, settings)
        self.service = Service(settings, self.store, jobs, FinishedEvents(url))
        self.queue = Queue("gamma", connection=self.redis, serializer=JSONSerializer)

    def submit(self, picture: bytes, view: View = View.CENTER) -> str:
        """Queue a detection."""
        return self.service.submit(Submission("benchmark", picture, view)).id


def decoders() -> Decoders:
    """Start the default number of decoders; they end with this process."""
    return Decoders(2, max_pixels=10**8)


def batch_worker(url: str, processor_class: type[Processor], detector, max_batch: int = 8):
    """Make a worker in this process, with a counting connection."""
    redis = connect(url, retries=10)
    redis.connection_pool.connection_class = CountingConnection
    info = describe(detector, worker_name())
    processor = processor_class(detector, info, Store(redis), decoders())
    return BatchWorker("gamma", redis, processor, info, max_batch=max_batch)


# -- (a) ------------------------------------------------------------------------------------------


def pipeline(options: argparse.Namespace) -> None:
    """Compare crops/s of the pipeline with those of a bare loop.

    The loop only runs the network on one decoded batch. The pipeline also fetches from Redis,
    decodes, cuts, merges and encodes.
    """
    for backbone in options.backbones:
        torch.manual_seed(0)
        model = GammaModel(GammaConfig(backbone=backbone))
        real = Detector(model, device="cpu", max_pixels=10**8, max_tiles=64)
        real.warm_up()
        title = f"{backbone} on this CPU in {real.info.dtype}, which also decodes and encodes"
        overlap(real, title, options.crops, options.turns)
    title = "a simulated device with 300 ms per batch"
    overlap(SlowModel(0.3), title, 8 * options.crops, options.turns)


def overlap(detector: Detector, title: str, crops: int, turns: int) -> None:
    """Compare pipeline and loop for one detector."""
    data = encode(photo(512, 512))
    picture = detector.cut(detector.decode(data), views.View.CENTER)
    count = crops // 4 * 4
    with redis_server() as url:
        front = Front(url)
        info = describe(detector, "benchmark")
        times = {"bare loop": [], "pipeline": []}
        work = {"bare loop": [], "pipeline": []}
        for _ in range(turns):
            with timed(times["bare loop"], work["bare loop"]):
                for _ in range(count // 4):
                    sights = detector.look([picture] * 4)
                    detector.forward([Part(picture, sight) for sight in sights])

            names = [front.submit(data) for _ in range(count)]
            left = Counter(names)
            done = threading.Event()

            def deliver(results, left=left, done=done):
                for name, result in results.items():
                    assert isinstance(result, Outcome), result
                    del left[name]
                if not left:
                    done.set()

            running = Pipeline(
                Processor(detector, info, front.store, decoders()),
                max_batch=4,
                window=0,
                threads=2,
                deliver=deliver,
                give_up=lambda error: print(error),
            )
            with timed(times["pipeline"], work["pipeline"]):
                for at in range(0, count, 4):
                    running.feed(names[at : at + 4])
                done.wait(_FINAL_TIMEOUT)
            running.close()
    print(f"\n(a) {count} crops in batches of 4, best of {turns} turns: {title}")
    for name, seconds in times.items():
        cpu = min(work[name]) / count * 1e3
        print(f"  {name:10} {count / min(seconds):8.2f} crops/s, {cpu:7.1f} ms of CPU per crop")
    verdict("  ratio", min(times["bare loop"]) / min(times["pipeline"]), PIPELINE_BAR)


@contextlib.contextmanager
def timed(times: list[float], work: list[float]) -> Iterator[None]:
    """Append the elapsed time and the CPU time of this process."""
    start, began = time.perf_counter(), time.process_time()
    yield
    times.append(time.perf_counter() - start)
    work.append(time.process_time() - began)


# -- (b) ------------------------------------------------------------------------------------------


def nothing(_name: str) -> None:
    """Do nothing."""


def detect(name: str) -> None:
    """Process a detection like the batch worker, without a model."""
    store = Store(get_current_job().connection)
    record = store.start([name])[name]
    store.get_images([name])
    with store.redis.pipeline() as pipeline:
        store.finish(pipeline, record.model_copy(update={"status": Status.SUCCEEDED}))
        pipeline.execute()


def jobs(options: argparse.Namespace) -> None:
    """Compare jobs/s and Redis round trips per job with stock RQ, without a model."""
    detector = SlowModel(0)
    picture = encode(Image.new("RGB", (32, 32)))
    found: dict[str, tuple[float, float]] = {}
    with redis_server() as url:
        front = Front(url)

        def measure(name, build, count, function=None):
            front.redis.flushall()
            if build is None:
                worker = batch_worker(url, NoModel, detector, options.max_batch)
                for _ in range(count):
                    front.submit(picture)
            else:
                redis = connect(url)
                redis.connection_pool.connection_class = CountingConnection
                worker = build(["gamma"], connection=redis, serializer=JSONSerializer)
                names = [front.submit(picture) for _ in range(count)]
                front.redis.delete(front.queue.key)
                for detection in names:
                    front.queue.enqueue_call(function, (detection,), result_ttl=600)
            teardown, ends = worker.teardown, []

            def end():
                ends.append((time.perf_counter(), CountingConnection.sent))
                teardown()  # RQ's teardown waits a second for a thread

            worker.teardown = end
            CountingConnection.sent = 0
            start = time.perf_counter()
            worker.work(burst=True, logging_level="ERROR")
            assert front.redis.zcard("rq:finished:gamma") == count
            found[name] = (count / (ends[0][0] - start), ends[0][1] / count)

        few = max(20, options.jobs // 20)
        measure("Worker", Worker, few, detect)
        measure("SimpleWorker, empty function", SimpleWorker, options.jobs, nothing)
        measure("SimpleWorker", SimpleWorker, options.jobs, detect)
        measure("batch worker", None, options.jobs)
    print(f"\n(b) {options.jobs} detections without a model (Worker: {few}), one process")
    for name, (rate, trips) in found.items():
        shown = "in its forks too" if name == "Worker" else f"{trips:6.2f} round trips per job"
        print(f"  {name:28} {rate:9.1f} jobs/s  {shown}")
    verdict(
        "  jobs/s to SimpleWorker", found["batch worker"][0] / found["SimpleWorker"][0], SPEED_BAR
    )
    trips = found["batch worker"][1]
    print(f"  round trips per job {trips:.2f} (target {TRIPS_BAR:g}: {met(trips <= TRIPS_BAR)})")


# -- (c) ------------------------------------------------------------------------------------------


def load(options: argparse.Namespace) -> None:
    """Measure latency at fixed arrival rates, up to overload."""
    seconds = 0.08
    detector = SlowModel(seconds)
    picture = encode(photo(512, 512))
    top = 8 / seconds
    print(f"\n(c) open loop; the device takes {seconds * 1e3:.0f} ms for 1 to 8 crops: {top:.0f}/s")
    print("  wait: until a worker takes it; batch: crops, mean and maximum")
    print("  offered/s  done/s   p50 ms   p95 ms   p99 ms   wait p50   p99 ms   batch")
    for share in options.shares:
        detector.sizes.clear()
        with redis_server() as url:
            front = Front(url)
            worker = batch_worker(url, Processor, detector)
            rate = share * top
            records = arrive(front, worker, picture, rate, int(rate * options.seconds))
        total = sorted(record.timings.total * 1e3 for record in records)
        waits = sorted(record.timings.queued * 1e3 for record in records)
        first = min(record.created_at for record in records)
        last = max(record.finished_at for record in records)
        done = len(records) / (last - first).total_seconds()
        cuts = [total[int(len(total) * part)] for part in (0.5, 0.95, 0.99)]
        cuts += [waits[int(len(waits) * part)] for part in (0.5, 0.99)]
        shown = "  ".join(f"{cut:7.0f}" for cut in cuts)
        sizes = f"{statistics.mean(detector.sizes):4.1f} {max(detector.sizes):3}"
        print(f"  {rate:9.0f}  {done:6.1f}  {shown}  {sizes}", flush=True)
    print("\n(c) small pictures behind one of 64 tiles, the same device, batches of 8")
    with redis_server() as url:
        front = Front(url)
        worker = batch_worker(url, Processor, detector)
        large = front.submit(encode(photo(3648, 3648)), View.TILED)
        small = [front.submit(picture) for _ in range(8)]
        worker.work(burst=True, logging_level="ERROR")
        ends = [front.store.get(name).timings.total for name in (large, *small)]
    print(
        f"  large picture after {ends[0]:.2f} s, small pictures after at most {max(ends[1:]):.2f} s"
    )


def arrive(front: Front, worker: BatchWorker, picture: bytes, rate: float, count: int):
    """Submit at fixed times while the worker runs in the main thread; return the records."""
    names: list[str] = []

    def submit() -> None:
        start = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            names.append(front.submit(picture))

    threading.Thread(target=submit).start()
    worker.work(max_jobs=count, logging_level="ERROR")
    return [front.store.get(name) for name in names]


# -- (d) ------------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> None:
    """Measure resident memory over many pictures, including some of 48 megapixels."""
    detector = SlowModel(0.01)
    kinds = {
        "512 x 512": encode(photo(512, 512)),
        "2000 x 1500": encode(photo(2000, 1500)),
        "8000 x 6000": encode(Image.new("RGB", (8000, 6000), (90, 120, 10))),
    }
    import psutil  # not above: `benchmarks.capacity` needs no extra but `serve`

    process = psutil.Process()
    rng = np.random.default_rng(0)
    picks = rng.choice(list(kinds), options.pictures, p=[0.955, 0.04, 0.005])
    samples: list[int] = []
    names: deque[str] = deque()
    with redis_server() as url:
        front = Front(url)
        worker = batch_worker(url, Processor, detector)
        before = process.memory_info().rss
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.1):
                samples.append(process.memory_info().rss)

        def submit() -> None:
            for pick in picks:
                while front.queue.connection.llen(front.queue.key) > 50:
                    time.sleep(0.05)
                names.append(front.submit(kinds[str(pick)], View.TILED))
                # Keep Redis small; only the worker's memory is measured.
                while len(names) > 200:
                    front.service.delete(names.popleft(), "benchmark")

        for target in (sample, submit):
            threading.Thread(target=target, daemon=True).start()
        worker.work(max_jobs=options.pictures, logging_level="ERROR")
        done.set()
    quarters = [max(part) / 2**20 for part in np.array_split(samples, 4) if len(part)]
    print(f"\n(d) {dict(Counter(map(str, picks)))}, resident memory")
    print(f"  before {before / 2**20:.0f} MiB; peak of each quarter of the run:", end=" ")
    print(", ".join(f"{quarter:.0f} MiB" for quarter in quarters))


# -------------------------------------------------------------------------------------------------


def met(fine: bool) -> str:
    """Return the text for a target that is met or missed."""
    return "met" if fine else "MISSED"


def verdict(name: str, ratio: float, bar: float) -> None:
    """Print a ratio and whether it reaches its target."""
    print(f"{name} {ratio:.2f} (target {bar:g}: {met(ratio >= bar)})", flush=True)


def main() -> None:
    """Run the benchmark."""
    parts = {"pipeline": pipeline, "jobs": jobs, "load": load, "memory": memory}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*parts, []])
    parser.add_argument("--turns", type=int, default=3, help="number of turns; the best counts")
    parser.add_argument("--backbones", nargs="*", default=["mit_b2", "mit_b0"], help="(pipeline)")
    parser.add_argument("--crops", type=int, default=48, help="crops per turn (pipeline)")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs (jobs)")
    parser.add_argument("--max-batch", type=int, default=8, help="maximum batch size (jobs)")
    parser.add_argument("--seconds", type=float, default=20, help="at each arrival rate (load)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 0.6, 0.8, 0.95, 1.1])
    parser.add_argument("--pictures", type=int, default=5000, help="pictures (memory)")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    for part in options.parts or parts:
        parts[part](options)


if __name__ == "__main__":
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    main()
