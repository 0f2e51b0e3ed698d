"""The canary: two small pictures and the network's outputs for them at export time.

NaN outputs are detected with any picture. A faulty device or damaged weights may give finite but
wrong outputs; these differ from the outputs stored with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.engine import ModelOutputError, Part
from pictures.findings import View

if TYPE_CHECKING:
    from model.detector import Detector

TOLERANCE = 0.05
"""Largest allowed difference from a reading; bfloat16 causes up to 0.01 near 0 and 1."""
SIDE = 64
"""Side of the pictures, pixels."""

_CANDIDATES = 8
_READINGS = ("AI probability", "mean of the AI mask", "mean of the manipulation mask", "glance")


class ModelSickError(Exception):
    """The model's outputs are not finite or differ from its canary; the process should end."""


class Canary(NamedTuple):
    """Pictures and the network's outputs for them."""

    pictures: NDArray[np.uint8]
    """RGB (2, SIDE, SIDE, 3)."""
    readings: NDArray[np.float32]
    """Probabilities (2, 3 or 4): of the picture, the mean of each mask, and of the glance alone
    if the network has a prior."""


def choose(detector: Detector) -> Canary:
    """Create the canary of a network that is known to work.

    Of a few synthetic pictures, the two with the lowest and the highest AI probability are used.
    So a network with constant output is detected too, and rounding matters least near 0 and 1.

    Raises:
        ModelOutputError: Its outputs are not finite.
    """
    pictures = np.stack([_draw(seed) for seed in range(_CANDIDATES)])
    readings = _read(detector, pictures)
    ends = [readings[:, 0].argmin(), readings[:, 0].argmax()]
    return Canary(pictures[ends], readings[ends])


def check(detector: Detector, canary: Canary | None) -> None:
    """Compare the outputs of a network with its canary.

    Args:
        detector: The network.
        canary: None: only check that the outputs are finite.

    Raises:
        ModelSickError: An output is not finite or differs by more than `TOLERANCE`.
        DeviceError: The device failed.
    """
    info = detector.info
    name = f"{info.name} {info.version} on {info.device}"
    try:
        found = _read(detector, [_draw(0)] if canary is None else canary.pictures)
    except ModelOutputError as error:
        raise ModelSickError(f"NaN model: {name} answers with NaN or infinity") from error
    if canary is None:
        return
    if found.shape != canary.readings.shape:
        raise ModelSickError(f"{name} and its canary do not belong together")
    differences = np.abs(found - canary.readings)
    if not differences.max() <= TOLERANCE:
        worst = np.unravel_index(differences.argmax(), differences.shape)
        raise ModelSickError(
            f"the outputs of {name} differ from those at its export: {_READINGS[worst[1]]} of a "
            f"known picture is {found[worst]:.3f} instead of {canary.readings[worst]:.3f}"
        )


def _read(
    detector: Detector, pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Compute the readings of pictures; see `Canary.readings`."""
    crops = [detector.cut(picture, View.CENTER) for picture in pictures]
    sights = detector.look(crops)
    outputs = detector.forward([Part(*pair) for pair in zip(crops, sights, strict=True)])
    readings = []
    for (*_, layout), output, sight in zip(crops, outputs, sights, strict=True):
        found = detector.conclude(layout, output, sight)
        assert found.masks is not None  # noqa: S101 - there is a crop
        reading = [found.ai_probability, *(mask.values.mean() / 255 for mask in found.masks)]
        if sight is not None:
            alone = detector.conclude(replace(layout, rows=(), columns=()), output, sight)
            reading.append(alone.ai_probability)
        readings.append(reading)
    return np.array(readings, np.float32)


def _draw(seed: int) -> NDArray[np.uint8]:
    """Draw a scene of soft spots, some with noise (SIDE, SIDE, 3)."""
    rng = np.random.default_rng(seed)
    spots = 2 ** (1 + seed % 4)
    coarse = Image.fromarray(rng.integers(0, 256, (spots, spots, 3), dtype=np.uint8))
    scene = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 1, scene.shape) * (0, 4, 12)[seed % 3]
    return np.clip(scene + grain, 0, 255).astype(np.uint8)
