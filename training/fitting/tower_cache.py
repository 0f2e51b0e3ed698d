"""Cache of the frozen tower's features for the pictures of a run: computed once, read by row.

Features are those of the stored picture, without the augmentation of its crops: this changes little
at the size of a glance, and computing the tower for every crop would take most of the time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import tower, views
from model.engine import preferred_dtype, to_levels
from model.glance import GlanceBranch
from model.tower import TowerFeatures
from pictures.errors import PictureError
from training.data.dataset import Pictures

_BATCH = 8
_DIGITS = 16  # digits of a digest in a file name


class TowerCache:
    """Tower features by row of `Pictures`, float16, in files."""

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        """Open or create the cache; features of other rows in the folder are deleted.

        Args:
            folder: Folder of the files.
            pictures: The rows.
        """
        self._pictures = pictures
        folder.mkdir(parents=True, exist_ok=True)
        name = _digest(pictures)
        for other in folder.glob("*.npy"):
            if name not in other.name:
                other.unlink(missing_ok=True)  # another process may have deleted it
        count = len(pictures)
        grid = (tower.GRID, tower.GRID, tower.WIDTH)
        self._tokens = _open(folder / f"tokens-{name}.npy", (count, tower.TOKENS), np.float16)
        self.patches = _open(folder / f"patches-{name}.npy", (count, *grid), np.float16)
        self._done = _open(folder / f"done-{name}.npy", (count,), np.bool_)

    def fill(self, branch: GlanceBranch, max_pixels: int, advance: Callable[[], object]) -> None:
        """Compute missing features; those of an unreadable picture stay 0.

        Args:
            branch: Its tower computes the features.
            max_pixels: Maximum width times height of a picture.
            advance: Called once per row.
        """
        waiting: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = defaultdict(list)
        for row in range(len(self._pictures)):
            advance()
            if self._done[row]:
                continue
            try:
                shrunk = views.glance(self._pictures.read(row, max_pixels))
            except (PictureError, OSError):
                continue
            waiting[shrunk.shape].append((row, shrunk))
            if len(waiting[shrunk.shape]) == _BATCH:
                self._look(branch, waiting.pop(shrunk.shape))
        for looks in waiting.values():
            self._look(branch, looks)

    def _look(self, branch: GlanceBranch, looks: list[tuple[int, NDArray[np.uint8]]]) -> None:
        rows = [row for row, _ in looks]
        features = compute_features(branch, [pixels for _, pixels in looks])
        self._tokens[rows] = features.tokens.half().cpu().numpy()
        self.patches[rows] = features.patches.half().cpu().numpy()
        self._done[rows] = True

    def of(
        self, rows: Sequence[int], mirrored: Sequence[bool], device: torch.device
    ) -> TowerFeatures:
        """Return the features of rows, float32; mirrored where `mirrored` is true."""
        patches = torch.from_numpy(self.patches[list(rows)]).to(device).float()
        turned = torch.tensor(mirrored, device=device)[:, None, None, None]
        patches = torch.where(turned, patches.flip(2), patches)
        tokens: Tensor = torch.from_numpy(self._tokens[list(rows)]).to(device).float()
        return TowerFeatures(tokens, patches)


def compute_features(branch: GlanceBranch, glances: Sequence[NDArray[np.uint8]]) -> TowerFeatures:
    """Compute the tower features of glances of one size, in the fastest precision.

    Args:
        branch: Its tower is used, on the device of its weights.
        glances: RGB pixels (h, w, 3).
    """
    device = branch.adapter.weight.device
    levels = to_levels(torch.from_numpy(np.stack(glances))).to(device)
    half = preferred_dtype(device) == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        return branch.look(levels)


def _digest(pictures: Pictures) -> str:
    """Return a digest of the paths of all rows, in order."""
    paths = pictures.paths
    digest = hashlib.sha256(repr((pictures.roots, paths.dtype.str)).encode())
    digest.update(pictures.root.tobytes() + paths.tobytes())
    return digest.hexdigest()[:_DIGITS]


def _open(file: Path, shape: tuple[int, ...], dtype: type) -> NDArray[np.generic]:
    mode = "r+" if file.exists() else "w+"
    return np.lib.format.open_memmap(file, mode=mode, dtype=dtype, shape=shape)
