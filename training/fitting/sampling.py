"""Sampling of training rows: epochs, batches, and their division among processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from training.config import ConfigError, Settings
from training.data.dataset import NO_ORIGINAL, Pictures, Request
from training.data.labels import Kind

_PLAN_STREAM = 0  # random stream; training.data.dataset has others
Indices = NDArray[np.int64]


class EpochBatches(Sampler[list[Request]]):
    """Batch sampler of one process.

    Every process samples the same epoch and takes its part of each batch, so the rows of a step do
    not depend on the number of processes and accumulated parts.
    """

    def __init__(
        self, pictures: Pictures, settings: Settings, *, processes: int = 1, rank: int = 0
    ) -> None:
        """Prepare the sampler.

        Args:
            pictures: The training rows.
            settings: Settings of the run.
            processes: Number of processes.
            rank: Index of this process.

        Raises:
            ConfigError: The settings do not fit the rows.
        """
        train, data = settings.train, settings.data
        parts = processes * train.accumulation
        group = 2 if data.pairs else 1
        if train.batch_size % (parts * group):
            raise ConfigError(
                f"train.batch_size: {train.batch_size} does not divide into {processes} processes "
                f"x {train.accumulation} accumulated parts{' of pairs' if data.pairs else ''}"
            )
        self.steps = int(len(pictures) * data.epoch_fraction + 1e-9) // train.batch_size
        if self.steps == 0:
            raise ConfigError(
                f"train.batch_size: {data.epoch_fraction:.0%} of {len(pictures)} training pictures "
                f"do not fill one batch of {train.batch_size}"
            )
        for kind in data.mix:
            if not len(pictures.of_kind(kind)):
                raise ConfigError(f"data.mix.{kind}: there is no training picture of this kind")
        paired = pictures.originals != NO_ORIGINAL
        if data.mix:
            paired &= np.isin(pictures.kinds, [list(Kind).index(kind) for kind in data.mix])
        if data.pairs and not paired.any():
            raise ConfigError(
                "data.pairs: no forgery has an original of the same source id and size"
            )
        self.size = train.batch_size // parts
        self.epoch = 0
        self.skip = 0
        """Steps to skip at the beginning of the epoch."""
        self._pictures = pictures
        self._settings = settings
        self._processes = processes
        self._rank = rank

    @property
    def samples(self) -> int:
        """Crops per epoch, over all processes."""
        return self.steps * self._settings.train.batch_size

    def describe(self) -> str:
        """Return a line on the number of pictures and steps of the epoch."""
        return (
            f"epoch {self.epoch + 1}: {self.samples:,} of {len(self._pictures):,} pictures, "
            f"{self.steps:,} steps of {self._settings.train.batch_size}"
        )

    def __len__(self) -> int:
        return self.steps * self._settings.train.accumulation

    def __iter__(self) -> Iterator[list[Request]]:
        requests = self._draw()
        accumulation = self._settings.train.accumulation
        parts = requests.reshape(self.steps, accumulation, self._processes, self.size, 2)
        for part in parts[self.skip :, :, self._rank].reshape(-1, self.size, 2):
            yield [Request(self.epoch, int(draw), int(index)) for draw, index in part]

    def _draw(self) -> Indices:
        """Return draw numbers and rows (samples, 2) of the epoch, in batch order."""
        rng = np.random.default_rng([_PLAN_STREAM, self._settings.train.seed, self.epoch])
        if not self._settings.data.pairs:
            rows = self._draw_rows(rng, np.arange(len(self._pictures)), self.samples)
            return np.stack([np.arange(self.samples), rows], axis=1)
        return self._draw_pairs(rng)

    def _draw_pairs(self, rng: np.random.Generator) -> Indices:
        """Pair forgeries with their originals, and rows without an original with each other."""
        originals = self._pictures.originals
        partners = np.unique(originals[originals != NO_ORIGINAL])
        candidates = np.setdiff1d(np.arange(len(self._pictures)), partners)
        rows = self._draw_rows(rng, candidates, self.samples + 1)
        doubles: list[tuple[tuple[int, int], tuple[int, int]]] = []
        waiting: tuple[int, int] | None = None
        for draw, row in enumerate(rows.tolist()):
            original = int(originals[row])
            if original != NO_ORIGINAL:
                doubles.append(((draw, original), (draw, row)))
            elif waiting is None:
                waiting = (draw, row)
            else:
                doubles.append((waiting, (draw, row)))
                waiting = None
        return np.array(doubles[: self.samples // 2]).reshape(-1, 2)

    def _draw_rows(self, rng: np.random.Generator, candidates: Indices, count: int) -> Indices:
        """Sample rows without repeats until all of the kind (or all rows) are used."""
        mix = self._settings.data.mix
        if not mix:
            return _cycle(rng, candidates, count)
        kinds = self._pictures.kinds[candidates]
        order = tuple(Kind)
        # With pairs, originals are not candidates, so their kind may be empty.
        shares = {k: share for k, share in mix.items() if (kinds == order.index(k)).any()}
        counts = _apportion(list(shares.values()), count)
        drawn = [
            _cycle(rng, candidates[kinds == order.index(kind)], number)
            for kind, number in zip(shares, counts, strict=True)
        ]
        return rng.permutation(np.concatenate(drawn))


def _cycle(rng: np.random.Generator, values: Indices, count: int) -> Indices:
    """Return `count` values from consecutive random permutations."""
    rounds = -(-count // len(values))
    return np.concatenate([rng.permutation(values) for _ in range(rounds)])[:count]


def _apportion(shares: list[float], count: int) -> list[int]:
    """Divide a number by shares (largest remainder method)."""
    exact = np.array(shares) / sum(shares) * count
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: count - whole.sum()]] += 1
    return [int(number) for number in whole]
