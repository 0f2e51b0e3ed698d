"""Speed and memory of the network, compared with the reference implementation.

    python -m benchmarks.model                                        # the whole table
    python -m benchmarks.model --backbones mit_b2 --batches 1 --quick # the targets only
    python -m benchmarks.model --device cuda --training-batches 1 16

Both use the same weights and run in turn in one process; the best of several turns counts, so that
other load affects both equally. Operations and memory are measured in a separate process for each
variant. No new measurement starts after `--minutes`.
"""

import argparse
import copy
import multiprocessing
import os
import platform
import re
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import wraps
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from model import network
from model.config import GammaConfig
from model.encoder import encode
from model.engine import InferenceEngine
from model.network import Decoder, GammaModel
from model.reference import ReferenceModel

SIDE = 512
# Target speed-ups over the reference in float32, for MiT-B2 on a CPU.
BARS = {"ours float32": 4.0, "ours bfloat16": 8.0, "ours training float32": 2.5}
INFERENCE = (
    "reference sdpa float32",  # the baseline
    "reference eager float32",
    "reference sdpa bfloat16",
    "ours float32",
    "ours bfloat16",
    "encoder of it float32",
    "encoder of it bfloat16",
)
TRAINING = (
    "reference training float32",
    "reference training bfloat16",
    "ours training float32",
    "ours training bfloat16",
)

Run = Callable[[], object]


class Cost(NamedTuple):
    """Operations and memory of a variant."""

    gigaflop: float
    """Operations of products and convolutions, in 10^9, without fused attention on a CPU."""
    memory: float
    """Peak memory in addition to weights and inputs, GiB."""


def build(backbone: str) -> GammaModel:
    """Build the same network in every process."""
    torch.manual_seed(0)
    return GammaModel(GammaConfig(backbone=backbone))


def make_inference(model: GammaModel, name: str, batch: int, device: torch.device) -> Run:
    """Prepare one variant of the forward pass."""
    dtype = name.rpartition(" ")[2]
    if name.startswith("reference"):
        book = ReferenceModel(copy.deepcopy(model).eval(), name.split()[1])
        book = book.to(device, getattr(torch, dtype))
        pixels = torch.randn(batch, 3, SIDE, SIDE).to(device, getattr(torch, dtype))
        return torch.inference_mode()(lambda: book(pixels))
    engine = InferenceEngine(copy.deepcopy(model), device=str(device), dtype=dtype, max_batch=batch)
    if name.startswith("ours"):
        tiles = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8)
        return lambda: engine.forward(tiles)
    pixels = torch.randn(batch, 3, SIDE, SIDE).to(device, engine.dtype)
    encoder = engine._model.encoder
    parts = pixels.split(engine.batch_limit)
    return torch.inference_mode()(lambda: [encode(encoder, part) for part in parts])


def make_training(model: GammaModel, name: str, batch: int, device: torch.device) -> Run:
    """Prepare one variant of the training step: forward and backward."""
    model = copy.deepcopy(model).to(device).train()
    trained = ReferenceModel(model, "sdpa").to(device) if name.startswith("reference") else model
    half = name.endswith("bfloat16")
    pixels = torch.randn(batch, 3, SIDE, SIDE, device=device)
    labels = torch.ones(batch, device=device)
    masks = torch.randint(0, 2, (batch, SIDE, SIDE), device=device, dtype=torch.uint8)

    def step() -> None:
        trained.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = trained(pixels, labels, masks, masks).loss
        loss.backward()

    return step


def make(model: GammaModel, name: str, batch: int, device: torch.device) -> Run:
    """Prepare one variant."""
    return (make_training if "training" in name else make_inference)(model, name, batch, device)


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_times(
    runs: dict[str, Run], turns: int, device: torch.device, deadline: float
) -> dict[str, float]:
    """Return the seconds of the best turn of each variant, after a warm-up turn."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(turns + 1):
        if turn > 1 and time.monotonic() > deadline:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            synchronise(device)
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def measure_cost(backbone: str, name: str, batch: int, device_name: str) -> Cost:
    """Measure operations and memory of one variant; needs a separate process."""
    device = torch.device(device_name)
    run = make(build(backbone), name, batch, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        before = pages * resource.getpagesize()
    with FlopCounterMode(display=False) as counter:
        run()
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(counter.get_total_flops() / 1e9, (peak - before) / 2**30)


def costs(
    backbone: str, names: Iterable[str], batch: int, device: torch.device
) -> dict[str, Cost | None]:
    """Return the costs of variants; None if the process died, probably out of memory."""
    found: dict[str, Cost | None] = {}
    for name in names:
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(1, context) as pool:
            try:
                found[name] = pool.submit(measure_cost, backbone, name, batch, str(device)).result()
            except BrokenProcessPool:
                found[name] = None
    return found


def table(
    backbone: str, names: tuple[str, ...], batch: int, turns: int, device: torch.device, end: float
) -> None:
    """Measure and print variants: time, operations, memory, ratio to the first of them."""
    spent = costs(backbone, names, batch, device)
    model = build(backbone)
    runs = {name: make(model, name, batch, device) for name in names if spent[name] is not None}
    seconds = best_times(runs, turns, device, end)
    for name in names:
        cost = spent[name]
        if cost is None:
            print(f"  {name:26} process died: out of memory?", flush=True)
            continue
        # The counter counts depthwise convolutions as dense ones in backward passes.
        work = "" if names is TRAINING else f"{cost.gigaflop / batch:.0f} GFLOP/crop"
        ratio = seconds.get(names[0], float("nan")) / seconds[name]
        bar = BARS.get(name) if (backbone, device.type) == ("mit_b2", "cpu") else None
        verdict = "" if bar is None else f"  target {bar:g}: {'met' if ratio >= bar else 'MISSED'}"
        print(
            f"  {name:26} {seconds[name] / batch * 1e3:8.1f} ms/crop "
            f"{batch / seconds[name]:8.2f} crops/s {cost.memory:6.2f} GiB {work:>15} "
            f"{ratio:6.2f}x{verdict}",
            flush=True,
        )


class Laps:
    """Stopwatch that adds the time since the last lap to a named part."""

    def __init__(self, device: torch.device) -> None:
        """Start with empty times."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device = device
        self._last = 0.0

    def start(self) -> None:
        """Start a pass."""
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the time since the last lap to `part`."""
        synchronise(self._device)
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def around(
        self, function: Callable[..., object], part: str, before: str | None = None
    ) -> Callable[..., object]:
        """Wrap a function: add its time to `part`, and the time before it to `before`."""

        @wraps(function)
        def timed(*args: object, **kwargs: object) -> object:
            if before is not None:
                self.lap(before)
            result = function(*args, **kwargs)
            self.lap(part)
            return result

        return timed


def profile(
    backbone: str, dtype: str, batch: int, turns: int, device: torch.device, end: float
) -> None:
    """Print the time of the forward pass by part, best turn."""
    engine = InferenceEngine(build(backbone), device=str(device), dtype=dtype, max_batch=batch)
    tiles = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8)
    laps = Laps(device)
    stages = engine._model.encoder.stages
    stages[0].patch_embeddings.proj.register_forward_pre_hook(lambda *_: laps.lap("pixels"))
    for number, stage in enumerate(stages, 1):
        stage.layer_norm.register_forward_hook(
            lambda *_, part=f"encoder, stage {number}": laps.lap(part)
        )
    wrapped = (
        (Decoder, "activate", "heads, upsampling and ReLU", "classifier"),
        (network, "project", "heads, projections", None),
        (GammaModel, "_attend_reverse", "heads, attention", "heads, masks"),
    )
    for owner, name, part, before in wrapped:
        patch.object(owner, name, laps.around(getattr(owner, name), part, before)).start()
    best: dict[str, float] = {}
    for turn in range(turns + 1):
        if turn > 1 and time.monotonic() > end:
            break
        laps.seconds.clear()
        laps.start()
        engine.forward(tiles)
        laps.lap("classifier")
        if turn and (not best or sum(laps.seconds.values()) < sum(best.values())):
            best = dict(laps.seconds)
    patch.stopall()
    total = sum(best.values())
    print(f"  {'all':26} {total / batch * 1e3:8.1f} ms/crop")
    for part, seconds in best.items():
        print(f"  {part:26} {seconds / batch * 1e3:8.1f} ms/crop {seconds / total:7.1%}")


def describe(device: torch.device) -> str:
    """Describe the machine."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    cpu = f"{found[1] if found else platform.processor() or 'CPU'}, {os.cpu_count()} cores"
    accelerator = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    flags = [name for name, there in torch.cpu.get_capabilities().items() if there is True]
    return (
        f"{accelerator}{cpu} ({', '.join(f for f in flags if 'bf16' in f) or 'no bf16'}), "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the start, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    encoders = [f"mit_b{number}" for number in range(6)]
    parser.add_argument("--backbones", nargs="+", choices=encoders, default=["mit_b0", "mit_b2"])
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--training-batches", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=5, help="number of turns; the best counts")
    parser.add_argument("--minutes", type=float, default=30, help="start nothing new after these")
    parser.add_argument("--quick", action="store_true", help="no profile by part")
    options = parser.parse_args()
    device = torch.device(options.device)
    end = time.monotonic() + 60 * options.minutes
    print(describe(device), flush=True)
    work: list[tuple[str, Run]] = []
    for names, kind, batches in (
        (INFERENCE, "inference", options.batches),
        (TRAINING, "training step", options.training_batches),
    ):
        for batch in batches:
            for backbone in options.backbones:
                title = f"{backbone}, {SIDE} x {SIDE}, {kind}, batch {batch}"
                arguments = (backbone, names, batch, options.turns, device, end)
                work.append((title, lambda a=arguments: table(*a)))
    if not options.quick:
        for backbone in options.backbones:
            for dtype in ("float32", "bfloat16"):
                title = f"{backbone}, {dtype}, by part"
                arguments = (backbone, dtype, 1, options.turns, device, end)
                work.append((title, lambda a=arguments: profile(*a)))
    for title, run in work:
        late = time.monotonic() > end
        print(f"{title}: not measured, out of time" if late else title, flush=True)
        if not late:
            run()


if __name__ == "__main__":
    main()
