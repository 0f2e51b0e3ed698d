"""Learning the table of `model.cooccurrence` before the network.

The table is the first layer of a small MLP that classifies the co-occurrence histograms of crops.
Histograms are computed once and the MLP trains on thousands of them per second, so this takes
minutes, while training the table inside the network would take days.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from model import checkpoint
from model.cooccurrence import ROWS, histogram
from model.network import IGNORE, GammaModel
from training.config import ConfigError, Settings
from training.data.dataset import Batch, Pictures, TrainingCrops, collate
from training.fitting.sampling import EpochBatches
from training.output import progress_bar

_HIDDEN = 64
_DROPOUT = 0.2
_PASSES = 10  # over the histograms
_BATCH = 128
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.3
_LARGEST = 5.0  # standard deviations; limits the influence of rare triples


class Histograms(NamedTuple):
    """Training data of the MLP."""

    values: Tensor
    """(N, ROWS), float32."""
    labels: Tensor
    """1: the whole crop is AI-generated, 0: none of it (N,), float32."""


def start(model: GammaModel, pictures: Pictures, settings: Settings, console: Console) -> None:
    """Set the table of a network with co-occurrence input: copied or learned, by the settings.

    Args:
        model: The network, changed in place; unchanged if it has another input.
        pictures: The training rows.
        settings: Settings of the run.
        console: Terminal for the progress bar.

    Raises:
        ConfigError: The settings do not fit the rows or the other checkpoint.
        UnreadablePictureError: Too many pictures of one kind cannot be read.
    """
    if model.input is None:
        return
    source = settings.start.cooccurrences
    table = _take(source) if source else learn(pictures, settings, console)
    if table.shape != model.input.table.shape:
        raise ConfigError(f"start.cooccurrences: {source} has {table.shape[1]} channels")
    model.input.table.data.copy_(table)


def _take(source: str) -> Tensor:
    try:
        other = checkpoint.load(source)
    except checkpoint.CheckpointError as error:
        raise ConfigError(f"start.cooccurrences: {error}") from error
    if other.input is None:
        raise ConfigError(f"start.cooccurrences: {source} has input {other.config.input}")
    return other.input.table.detach()


def learn(pictures: Pictures, settings: Settings, console: Console) -> Tensor:
    """Learn the table of a run from `start.cooccurrence_crops` training crops.

    Every process of a run computes the same table.

    Args:
        pictures: The training rows.
        settings: Settings of the run.
        console: Terminal for the progress bar.

    Returns:
        Table (ROWS, `model.input_channels`).

    Raises:
        ConfigError: The settings do not fit the rows.
        UnreadablePictureError: Too many pictures of one kind cannot be read.
    """
    wanted = settings.start.cooccurrence_crops
    values, labels = [], []
    with progress_bar(console, transient=True) as progress:
        bar = progress.add_task("co-occurrences", total=wanted)
        for batch in _draw(pictures, settings):
            ai = batch["ai_labels"].flatten(1)
            whole = ((ai == ai[:, :1]) & (ai != IGNORE)).all(1)
            if whole.any():
                levels = batch["tiles"][whole].permute(0, 3, 1, 2).float()
                # Half precision saves memory and is exact enough for shares.
                values.append(histogram(levels).half())
                labels.append(ai[whole, 0].float())
            # Count all crops: the loop must end even if no crop is of one class.
            progress.advance(bar, len(ai))
            if progress.finished:
                break
    if not values:
        raise ConfigError("model.input: co-occurrences need crops that are fully of one class")
    found = Histograms(torch.cat(values).float(), torch.cat(labels))
    return learn_table(found, settings.model.input_channels, settings.train.seed)


def _draw(pictures: Pictures, settings: Settings) -> Iterator[Batch]:
    batches = EpochBatches(pictures, settings)
    loader = DataLoader(
        TrainingCrops(pictures, settings),
        batch_sampler=batches,
        num_workers=settings.data.workers,
        collate_fn=collate,
    )
    for batches.epoch in count():
        yield from loader


def learn_table(histograms: Histograms, channels: int, seed: int) -> Tensor:
    """Train the MLP and return its first layer.

    Args:
        histograms: Crops of both classes.
        channels: Length C of the vectors.
        seed: Random seed.

    Returns:
        Table (ROWS, C), scaled so that the maps of the crops have mean 0 and, over the crops'
        means, standard deviation 1.
    """
    values, labels = histograms
    mean, std = values.mean(0), values.std(0) + 1e-5
    inputs = ((values - mean) / std).clamp_(-_LARGEST, _LARGEST)
    balance = (len(labels) - labels.sum()) / labels.sum().clamp(min=1)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        first = nn.Linear(ROWS, channels)
        mlp = nn.Sequential(
            first,
            nn.BatchNorm1d(channels),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(channels, _HIDDEN),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_HIDDEN, 1),
        )
        optimiser = torch.optim.AdamW(
            mlp.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
        )
        steps = _PASSES * -(-len(inputs) // _BATCH)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
        for _ in range(_PASSES):
            order = torch.randperm(len(inputs))
            for begin in range(0, len(order), _BATCH):
                chosen = order[begin : begin + _BATCH]
                if len(chosen) > 1:  # batch norm needs two samples
                    logits = mlp(inputs[chosen])[:, 0]
                    loss = F.binary_cross_entropy_with_logits(
                        logits, labels[chosen], pos_weight=balance
                    )
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                schedule.step()
    return _scale((first.weight.detach() / std).T, values)


def _scale(table: Tensor, values: Tensor) -> Tensor:
    means = values @ table  # (N, C)
    # Every pixel looks up the same number of rows, so subtract the mean evenly from all rows.
    table = table - means.mean(0) / values.sum(1).mean()
    return (table / means.std(0).clamp(min=1e-6)).contiguous()
