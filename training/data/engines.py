"""Inpainting engines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from training.data.labels import Kind
from training.errors import UserError

_RADIUS = 3  # pixels, neighbourhood of classical inpainting
_BLUR = (0.8, 3.0)  # standard deviation, pixels
_SHRINK = (1.5, 4.0)
_DENOISE = (3, 12)  # filter strength of non-local means, levels


class EngineError(UserError):
    """An engine cannot be loaded; the message names the source."""


class Fill(StrEnum):
    """What an autoencoder puts into the region."""

    NOISE = "noise"
    """Gaussian noise with the mean and standard deviation of each latent channel."""
    DONOR = "donor"
    """The latents of another picture."""


@dataclass(frozen=True, eq=False)
class Task:
    """A region to inpaint."""

    picture: NDArray[np.uint8]
    """(H, W, 3)."""
    region: NDArray[np.bool_]
    """(H, W), true = inpaint."""
    seed: int
    prompt: str
    """Empty: without prompt."""
    donor: NDArray[np.uint8] | None
    """Another picture (h, w, 3), for engines that need one."""


class Engine(Protocol):
    """An inpainting engine."""

    @property
    def kind(self) -> Kind:
        """`inpaint`, or `classical_inpaint` for an algorithm without a network."""

    @property
    def generator(self) -> str:
        """Name in the manifest."""

    @property
    def fill(self) -> str | None:
        """Guidance in the manifest, if the engine takes no prompts."""

    @property
    def wants_donor(self) -> bool:
        """Whether a task needs a donor picture."""

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings that determine the pixels, besides the task."""

    def repaint(self, task: Task) -> NDArray[np.uint8]:
        """Return the picture (H, W, 3) with the region inpainted, deterministically.

        Raises:
            SkippedError: The engine cannot process the picture.
        """


class ClassicalEngine:
    """Telea's inpainting (OpenCV), without a network."""

    kind = Kind.CLASSICAL_INPAINT
    generator = "opencv-telea"
    fill = None
    wants_donor = False
    settings: ClassVar[dict[str, JsonValue]] = {"engine": generator, "radius": _RADIUS}

    def repaint(self, task: Task) -> NDArray[np.uint8]:
        """Return the picture with the region filled from its edges inwards."""
        import cv2

        repainted = cv2.inpaint(
            np.ascontiguousarray(task.picture),
            task.region.astype(np.uint8),
            _RADIUS,
            cv2.INPAINT_TELEA,
        )
        return repainted.astype(np.uint8)


class RetouchEngine:
    """Blurs, resamples or denoises the region: smooth like a decoder's output, but not AI."""

    kind = Kind.CLASSICAL_INPAINT
    generator = "opencv-retouch"
    fill = None
    wants_donor = False
    settings: ClassVar[dict[str, JsonValue]] = {
        "engine": generator,
        "blur": list(_BLUR),
        "shrink": list(_SHRINK),
        "denoise": list(_DENOISE),
    }

    def repaint(self, task: Task) -> NDArray[np.uint8]:
        """Return the picture with the region changed by one of the three, chosen by the seed."""
        import cv2

        rng = np.random.default_rng(task.seed)
        picture = np.ascontiguousarray(task.picture)
        height, width = task.region.shape
        match rng.integers(3):
            case 0:
                changed = cv2.GaussianBlur(picture, (0, 0), rng.uniform(*_BLUR))
            case 1:
                factor = rng.uniform(*_SHRINK)
                size = max(1, round(width / factor)), max(1, round(height / factor))
                small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
                changed = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
            case _:
                strength = rng.uniform(*_DENOISE)
                changed = cv2.fastNlMeansDenoisingColored(picture, None, strength, strength)
        return np.where(task.region[..., None], changed, task.picture).astype(np.uint8)


def pad(pixels: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Replicate the last row and column until H and W are multiples of a number."""
    missing = [(0, -length % multiple) for length in pixels.shape[:2]]
    return np.pad(pixels, missing + [(0, 0)] * (pixels.ndim - 2), mode="edge")
