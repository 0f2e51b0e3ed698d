"""Capacity planning: the formulas and tables of docs/capacity.md, and their measured inputs.

    python -m benchmarks.capacity          # the tables of the page, from the constants below
    python -m benchmarks.capacity check    # mean waits by the formula and simulated, JSON lines
    python -m benchmarks.capacity measure  # bytes per detection, and waits beside the formula

The formulas depend on pictures/s, crops and seconds only.
"""

import argparse
import json
import math
import random
import statistics
import threading
import time
from dataclasses import dataclass

from redis import Redis

from app.contract.records import holding_key, key
from app.contract.reservation import reserved
from app.contract.settings import Settings
from benchmarks.support import encode, photo
from pictures.findings import View

LOAD = 0.7  # planned utilisation of workers
FILL = 0.9  # GAMMA_STORAGE_LIMIT: uploads above it are refused
QUEUE = 60.0  # s of queued uploads to plan memory for


RECORD = 3_990  # bytes, from `measure`


@dataclass(frozen=True)
class Device:
    """Device of one worker.

    Attributes:
        batch: Maximum number of crops per forward pass.
        seconds: Duration of a pass of that size.
    """

    batch: int
    seconds: float

    @property
    def rate(self) -> float:
        """Crops/s."""
        return self.batch / self.seconds


@dataclass(frozen=True)
class Picture:
    """A picture as measured by `measure`.

    Attributes:
        crops: Number of crops with `view=tiled`.
        upload: Bytes of the file in Redis.
        size: Growth of Redis in bytes: file, masks, record and data of RQ.
    """

    width: int
    height: int
    crops: int
    upload: int
    size: int

    @property
    def reserved(self) -> int:
        """Bytes reserved for its result while it is queued."""
        return reserved(self.width * self.height, masks=True)

    @property
    def waiting(self) -> int:
        """Bytes of the storage limit it uses while it is queued."""
        return self.upload + RECORD + self.reserved


CPU = Device(batch=1, seconds=0.233)
"""Two cores of an AMD EPYC, built-in model, float32: half of the CPU time of one thread for one of
20 crops, with what is computed once for a picture."""
GPU = Device(batch=32, seconds=0.064)
"""Assumed, not measured: 500 crops/s."""
PICTURES = (
    Picture(512, 512, 1, 28_676, 169_508),
    Picture(1024, 768, 6, 76_920, 421_240),
    Picture(1600, 1200, 12, 176_632, 1_059_894),
    Picture(2048, 1536, 20, 278_000, 1_668_000),  # bytes interpolated
    Picture(4000, 3000, 63, 1_011_816, 6_059_688),
)
TYPICAL = PICTURES[3]
"""Near the mean of 20.6 crops a picture that was measured with the built-in model."""


def workers(pictures: float, crops: int, device: Device) -> int:
    """Return the number of workers for `pictures`/s with `crops` each."""
    return math.ceil(pictures * crops / (LOAD * device.rate))


def wait(pictures: float, crops: int, device: Device, count: int, variation: float = 0.0) -> float:
    """Return the mean seconds from upload to forward pass; infinite under overload.

    M/G/c approximation of Allen and Cunneen, with one server per picture that fits into a pass,
    plus the wait for the end of a running pass. Accurate for one worker, too high for several.

    Args:
        pictures: Arrivals per second (Poisson).
        crops: Crops per picture.
        device: Device of each worker.
        count: Number of workers.
        variation: Squared coefficient of variation of the number of crops.
    """
    together = max(1, device.batch // crops)  # pictures per pass
    places, seconds = count * together, together * crops / device.rate
    offered = pictures * seconds  # occupied servers, on average
    if offered >= places:
        return math.inf
    blocked = 1.0  # Erlang B, recursively
    for place in range(1, places + 1):
        blocked = offered * blocked / (place + offered * blocked)
    load = offered / places
    waiting = blocked / (1 - load * (1 - blocked))  # Erlang C
    queued = waiting * seconds / (places - offered) * (1 + variation) / 2
    # A pass is running with probability 1 - e^-λs, if passes are never full. With several devices
    # one may be free sooner, but their passes tend to synchronise.
    busy = -math.expm1(-pictures * device.seconds / count) if device.batch > 1 else 0.0
    return queued + busy * device.seconds / 2


def memory(pictures: float, retention: float, picture: Picture) -> float:
    """Return the bytes of `maxmemory` for `pictures`/s kept for `retention` seconds.

    Args:
        pictures: Pictures per second; those of `QUEUE` seconds may be queued.
        retention: Seconds.
        picture: A typical picture; its record is kept twice as long.
    """
    kept = pictures * retention * (picture.size + RECORD)
    return (kept + pictures * QUEUE * picture.waiting) / FILL


def simulate(pictures: float, device: Device, count: int, arrivals: int, seed: int) -> float:
    """Simulate the mean wait (s) of pictures with one crop; free devices take all queued ones."""
    random_source = random.Random(seed)
    free = [0.0] * count
    now, waiting, waits = 0.0, [], []
    for _ in range(arrivals):
        now += random_source.expovariate(pictures)
        while waiting and min(free) <= now:
            _leave(free, waiting, waits, device)
        waiting.append(now)
    while waiting:
        _leave(free, waiting, waits, device)
    return statistics.mean(waits)


def _leave(free: list[float], waiting: list[float], waits: list[float], device: Device) -> None:
    """Start one pass, as soon as a device is free and a crop is queued."""
    which = free.index(min(free))
    start = max(free[which], waiting[0])
    batch = [came for came in waiting[: device.batch] if came <= start]
    del waiting[: len(batch)]
    waits += [start - came for came in batch]
    free[which] = start + device.seconds


# -- the tables -----------------------------------------------------------------------------------


def tables() -> str:
    """Return the tables of docs/capacity.md, in Markdown."""
    rows = [
        "| picture | crops | one detection | while it waits | 1 picture/s, 1 h | 1 picture/s, 24 h "
        "| 2 GB hold | 2 GB let wait |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for picture in PICTURES:
        hour, day = memory(1, 3600, picture), memory(1, 86_400, picture)
        held = 2e9 * FILL / (picture.size + RECORD)
        waiting = 2e9 * FILL / picture.waiting
        rows.append(
            f"| {picture.width} × {picture.height} | {picture.crops} | {picture.size / 1e3:.0f} kB "
            f"| {picture.waiting / 1e3:.0f} kB | {_bytes(hour)} | {_bytes(day)} "
            f"| {held:,.0f} | {waiting:,.0f} |"
        )
    rows += [
        "",
        "| pictures/s | crops/s | workers, the CPU | mean wait | workers, the GPU | mean wait "
        "| Redis, 1 h | Redis, 24 h |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rate in (0.1, 1, 10, 100, 1000, 10_000):
        cells = [f"{rate:,g}", f"{rate * TYPICAL.crops:,g}"]
        for device in (CPU, GPU):
            count = workers(rate, TYPICAL.crops, device)
            seconds = wait(rate, TYPICAL.crops, device, count)
            cells += [f"{count:,}", "< 0.01 s" if seconds < 0.01 else f"{seconds:.2f} s"]
        cells += [_bytes(memory(rate, retention, TYPICAL)) for retention in (3600, 86_400)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _bytes(number: float) -> str:
    """Format bytes with two significant digits."""
    digits = round(number, 1 - math.floor(math.log10(number)))
    return f"{digits / 1e9:,g} GB" if digits < 1e12 else f"{digits / 1e12:,g} TB"


def check() -> None:
    """Print mean waits (s) by the formula and simulated, one JSON object per case."""
    one = [(device, 1) for device in (Device(1, 0.5), Device(8, 0.08), Device(32, 0.1))]
    several = [(Device(1, 0.5), 3), (Device(8, 0.08), 4)]
    for device, count in one + several:
        for load in (0.3, 0.6, 0.8, 0.9) if count == 1 else (0.3, 0.6, 0.8):
            rate = load * count * device.rate
            simulated = simulate(rate, device, count, arrivals=20_000, seed=2)
            case = {"batch": device.batch, "workers": count, "load": load}
            waits = {"formula": wait(rate, 1, device, count), "simulated": simulated}
            print(json.dumps(case | waits))
    for crops in (1, 6):  # more than the worker can do
        rate = 1.02 * Device(8, 0.08).rate / crops
        case = {"batch": 8, "workers": 1, "load": 1.02, "crops": crops}
        print(json.dumps(case | {"formula": wait(rate, crops, Device(8, 0.08), 1)}))


# -- measuring ------------------------------------------------------------------------------------


def measure_bytes(sizes: list[tuple[int, int]]) -> None:
    """Measure the bytes of a detection in Redis, with a real worker and the built-in model."""
    from benchmarks.worker import Front, batch_worker, redis_server
    from worker.main import load_detector
    from worker.processing import Processor

    detector = load_detector(Settings(device="cpu"))
    info = detector.info
    print(f"model {info.name} {info.version}, {info.backbone}, {info.dtype}; bytes per detection")
    print(
        "  picture       crops   upload    masks   record"
        "   total growth of Redis    decode ms   encode ms"
    )
    with redis_server() as url:
        front = Front(url)
        smallest = (info.min_side, info.min_side)  # smaller ones are not judged
        for width, height in [smallest, *sizes]:  # the first for one-time allocations
            pictures = [encode(photo(width, height, seed)) for seed in range(4)]
            worker = batch_worker(url, Processor, detector)
            before = _kept(front.redis)
            names = [front.submit(picture, View.TILED) for picture in pictures]
            worker.work(burst=True, logging_level="ERROR")
            grown = _kept(front.redis) - before

            def usage(name: str) -> int:
                return front.redis.memory_usage(name, samples=0) or 0

            def held(name: str, part: str) -> int:
                return usage(holding_key(front.redis.hget(key(name), part)))

            upload = statistics.mean(held(name, "image") for name in names)
            masks = statistics.mean(held(name, "masks") for name in names)
            record = statistics.mean(usage(key(name)) for name in names)
            records = [front.store.get(name) for name in names]
            tiles = records[0].view.tiles
            decoding, encoding = (
                statistics.median(times) * 1e3
                for times in zip(
                    *((r.timings.decode, r.timings.encode) for r in records), strict=True
                )
            )
            print(
                f"  {width:4} × {height:4}   {tiles:5}  {upload:7.0f}  {masks:7.0f}  {record:7.0f}"
                f"   {grown / len(names):22.0f}   {decoding:9.0f}   {encoding:9.0f}",
                flush=True,
            )


def _kept(redis: Redis) -> int:
    """Return the memory of Redis without temporary buffers, bytes."""
    memory = redis.info("memory")
    return memory["used_memory"] - memory["mem_clients_normal"] - memory["mem_aof_buffer"]


def measure_wait(shares: list[float], seconds: float) -> None:
    """Measure waits with a real worker and a simulated device, and compare with the formula."""
    from benchmarks.worker import Front, SlowModel, batch_worker, redis_server
    from worker.processing import Processor

    device = Device(batch=8, seconds=0.4)
    detector = SlowModel(device.seconds)
    picture = encode(photo(512, 512))
    print(f"\nmean wait for a device that takes {device.seconds * 1e3:.0f} ms for 1 to 8 crops")
    print("  share   pictures/s   measured ms   formula ms")
    for share in shares:
        rate = share * device.rate
        with redis_server() as url:
            front = Front(url)
            worker = batch_worker(url, Processor, detector)
            count = int(rate * seconds)
            names: list[str] = []

            def submit(front=front, names=names, rate=rate, count=count) -> None:
                random_source, due = random.Random(1), time.perf_counter()
                for _ in range(count):
                    due += random_source.expovariate(rate)
                    time.sleep(max(0.0, due - time.perf_counter()))
                    names.append(front.submit(picture))

            threading.Thread(target=submit).start()
            worker.work(max_jobs=count, logging_level="ERROR")
            records = [front.store.get(name) for name in names]
        # Total time without forward pass, decoding and encoding.
        waits = [
            r.timings.total - r.timings.forward - r.timings.decode - r.timings.encode
            for r in records
        ]
        print(
            f"  {share:5.2f}   {rate:10.0f}   {statistics.mean(waits) * 1e3:11.0f}"
            f"   {wait(rate, 1, device, 1) * 1e3:10.0f}",
            flush=True,
        )


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ["tables", "check", "measure"]
    parser.add_argument("part", nargs="?", choices=parts, default="tables")
    parser.add_argument("--seconds", type=float, default=30, help="at each arrival rate")
    options = parser.parse_args()
    if options.part == "tables":
        print(tables())
    elif options.part == "check":
        check()
    else:
        measure_bytes([(512, 512), (1024, 768), (1600, 1200), (4000, 3000)])
        measure_wait([0.3, 0.6, 0.8], options.seconds)


if __name__ == "__main__":
    main()
