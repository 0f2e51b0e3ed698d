"""What repaints regions of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from training.data.labels import Kind
from training.errors import UserError

_RADIUS = 3  # pixels around each one that classical inpainting looks at


class EngineError(UserError):
    """An engine cannot be used; the message names what it was loaded from."""


@dataclass(frozen=True, eq=False)
class Task:
    """One region to repaint."""

    picture: NDArray[np.uint8]
    """(H, W, 3)."""
    region: NDArray[np.bool_]
    """(H, W), true = repaint."""
    seed: int
    prompt: str
    """Empty: unguided."""
    donor: NDArray[np.uint8] | None
    """Another picture (h, w, 3), for an engine that wants one."""


class Engine(Protocol):
    """Repaints regions."""

    @property
    def kind(self) -> Kind:
        """`inpaint`, or `classical_inpaint` if it is no network and leaves the rest untouched."""

    @property
    def generator(self) -> str:
        """Its name in the manifest."""

    @property
    def fill(self) -> str | None:
        """What leads it, if it takes no prompts."""

    @property
    def wants_donor(self) -> bool:
        """Whether a task must come with another picture."""

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What its pixels depend on, beside the task."""

    def repaint(self, task: Task) -> NDArray[np.uint8]:
        """The picture (H, W, 3) with the region repainted; the same for the same task.

        Raises:
            SkippedError: it refuses the picture.
        """


class ClassicalEngine:
    """Telea's inpainting (OpenCV): new pixels without a network."""

    kind = Kind.CLASSICAL_INPAINT
    generator = "opencv-telea"
    fill = None
    wants_donor = False
    settings: ClassVar[dict[str, JsonValue]] = {"engine": generator, "radius": _RADIUS}

    def repaint(self, task: Task) -> NDArray[np.uint8]:
        """The picture with the region filled from its edges inwards."""
        import cv2

        repainted = cv2.inpaint(
            np.ascontiguousarray(task.picture),
            task.region.astype(np.uint8),
            _RADIUS,
            cv2.INPAINT_TELEA,
        )
        return repainted.astype(np.uint8)


def pad(pixels: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Repeat the last row and column until both sides, (H, W, …), are multiples of a number."""
    missing = [(0, -length % multiple) for length in pixels.shape[:2]]
    return np.pad(pixels, missing + [(0, 0)] * (pixels.ndim - 2), mode="edge")
