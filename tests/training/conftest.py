"""Small trees of pictures, and settings for runs of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import photo
from tests.towers import small_tower
from training.config import Settings, override, validate
from training.data import manifest
from training.data.labels import LABELS, Kind
from training.data.manifest import describe

__all__ = ["small_tower"]

SIDE = 96
KINDS = tuple(Kind)


def make_tree(root: Path, sources: int = 4, *, side: int = SIDE) -> Path:
    """Make a manifest with every kind from each of `sources` scenes, for training and validation.

    AI-generated pixels are striped and forgeries inverted, which is learned in seconds.
    """
    rows = []
    stripes = (np.arange(side) % 2 * 60 - 30)[None, :, None]
    for source in range(2 * sources):
        scene = np.asarray(photo(side, side, source)).astype(int)
        region = np.zeros((side, side), bool)
        region[side // 8 : side // 2, side // 4 : -side // 8] = True
        made = np.clip(scene + stripes, 0, 255)
        inside = region[:, :, None]
        versions = {
            Kind.AUTHENTIC: scene,
            Kind.INPAINT: np.where(inside, 255 - made, made),
            Kind.BLENDED: np.where(inside, 255 - made, scene),
            Kind.COPY_MOVE: np.where(inside, 255 - scene, scene),
            Kind.SPLICE: np.where(inside, 255 - scene[::-1], scene),
            Kind.SYNTHETIC: made,
        }
        (root / "masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray((region * 255).astype(np.uint8)).save(root / f"masks/{source}.png")
        for kind, pixels in versions.items():
            file = root / f"{kind}-{source}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            plain = describe(file, root, Kind.AUTHENTIC, source_id=f"s{source}")
            mask = f"masks/{source}.png" if LABELS[kind].needs_region else None
            split = "train" if source < sources else "validation"
            rows.append(plain.model_copy(update={"kind": kind, "mask": mask, "split": split}))
    file = root / "manifest.jsonl"
    manifest.write(rows, file)
    return file


def small_settings(file: Path, *overrides: str) -> Settings:
    """Settings of a run that takes seconds: MiT-B0, 64-pixel crops, one thread, no loader."""
    values: dict[str, Any] = {
        "data": {"manifests": [str(file)], "epoch_fraction": 1.0, "workers": 0},
        "model": {
            "backbone": "mit_b0",
            "decoder_channels": 32,
            "output_channels": 32,
            "crop_size": 64,
        },
        "train": {"batch_size": 4, "epochs": 1, "log_every": 1, "precision": "float32"},
        "stopping": {"patience": 0},
    }
    return validate(override(values, overrides))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "data", 2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def configure(tree: Path) -> Callable[..., Settings]:
    return lambda *overrides: small_settings(tree, *overrides)
