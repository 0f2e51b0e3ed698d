"""Training speed: the step compared with the reference implementation, and the loader.

    python -m benchmarks.training                                  # MiT-B2, 512 x 512, batch 16
    python -m benchmarks.training --backbone mit_b0 --crop 128     # the small recipe

Step: forward, backward and AdamW of both networks in turn, best of several turns. Loader: random
crops of 640 x 480 JPEGs with the paper's augmentation, by number of workers. Waiting: the share
that a real run reports.
"""

import argparse
import copy
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from model.network import GammaModel
from model.reference import ReferenceModel
from training.config import Settings, validate
from training.data import manifest
from training.data.dataset import TrainingCrops, collate, load_pictures
from training.data.labels import Kind
from training.data.manifest import describe
from training.fitting import network
from training.fitting.fit import fit
from training.fitting.sampling import EpochBatches

BAR = 2.5
PICTURES = 64


def make_pictures(root: Path) -> Path:
    """Write 640 x 480 JPEGs that compress like photographs, with a manifest."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(2 * PICTURES):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        scene = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC))
        grain = rng.normal(0, 6, scene.shape)
        file = root / f"{number}.jpg"
        Image.fromarray(np.clip(scene + grain, 0, 255).astype(np.uint8)).save(file, quality=90)
        kind = Kind.AUTHENTIC if number % 2 else Kind.SYNTHETIC
        split = "train" if number < PICTURES else "validation"
        row = describe(file, root, kind, source_id=str(number))
        rows.append(row.model_copy(update={"split": split}))
    manifest.write(rows, root / "manifest.jsonl")
    return root / "manifest.jsonl"


def step(settings: Settings, turns: int, device: torch.device) -> None:
    """Print samples/s of the two networks and their ratio."""
    batch, side = settings.train.batch_size, settings.model.crop_size
    ours: GammaModel = network.build(settings)
    torch.nn.Module.to(ours, device)
    ours.train()
    book = ReferenceModel(copy.deepcopy(ours), "sdpa").to(device)
    pixels = torch.randn(batch, 3, side, side, device=device)
    labels = torch.ones(batch, device=device)
    masks = torch.randint(0, 2, (batch, side, side), device=device, dtype=torch.uint8)
    optimizers = {model: torch.optim.AdamW(model.parameters()) for model in (ours, book)}

    def run(model: torch.nn.Module) -> None:
        model.zero_grad()
        model(pixels, labels, masks, masks).loss.backward()
        optimizers[model].step()

    seconds = {"reference": float("inf"), "ours": float("inf")}
    for turn in range(turns + 1):  # the first one is a warm-up
        for name, model in (("reference", book), ("ours", ours)):
            start = time.perf_counter()
            run(model)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    for name, best in seconds.items():
        print(f"  step, {name:9} {batch / best:8.2f} samples/s")
    ratio = seconds["reference"] / seconds["ours"]
    print(f"  step, ratio    {ratio:8.2f}x (target {BAR}: {'met' if ratio >= BAR else 'MISSED'})")


def loader(settings: Settings, workers: list[int]) -> None:
    """Print samples/s of the loader."""
    pictures = load_pictures(settings.data.manifests, "train", tuple(Kind))
    for number in workers:
        batches = EpochBatches(pictures, settings)
        data: DataLoader[object] = DataLoader(
            TrainingCrops(pictures, settings),
            batch_sampler=batches,
            num_workers=number,
            collate_fn=collate,
            persistent_workers=number > 0,
        )
        rates = []
        for epoch in range(3):  # the first one starts the workers
            batches.epoch = epoch
            start = time.perf_counter()
            for _ in data:
                pass
            rates.append(batches.samples / (time.perf_counter() - start))
        print(f"  loader, {number} workers {max(rates[1:]):8.1f} samples/s")


def waiting(settings: Settings, folder: Path) -> None:
    """Print the last log entry of a run of two epochs."""
    fit(settings, folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "waiting_share" in line][-1]
    print(
        f"  run, {settings.data.workers} workers {last['samples_per_second']:8.2f} samples/s, "
        f"{last['waiting_share']:.1%} of the time waiting for data"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mit_b2")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument(
        "--batch",
        type=int,
        default=2,
        help="the reference B2 needs 1.5 GiB per crop",
    )
    parser.add_argument("--turns", type=int, default=2, help="number of turns; the best counts")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    print(
        f"{where or 'CPU'}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    print(f"{options.backbone}, {options.crop} x {options.crop}, batch {options.batch}, float32")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        settings = validate(
            {
                "data": {
                    "manifests": [str(make_pictures(root))],
                    "epoch_fraction": 1.0,
                    "workers": 1,
                },
                "model": {"backbone": options.backbone, "crop_size": options.crop},
                "train": {
                    "batch_size": options.batch,
                    "epochs": 2,
                    "log_every": PICTURES // options.batch,
                    "evaluate_every": 10**6,
                    "precision": "float32",
                },
                "stopping": {"patience": 0},
            }
        )
        step(settings, options.turns, device)
        loader(settings, options.workers)
        waiting(settings, root / "run")


if __name__ == "__main__":
    main()
