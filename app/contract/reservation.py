"""Memory of Redis that is reserved for the result of a detection until it is finished.

An upload is refused unless its picture and all pending results fit into the memory limit
(`app.contract.scripts.ACCEPT`), so that accepted detections can always be finished.
"""

from __future__ import annotations

from redis.client import Pipeline

from app.contract import scripts
from app.contract.schemas import Detection, Head
from pictures.findings import View

MASK_BYTES = 1
"""Bytes per pixel of one mask: its uncompressed size, an upper bound.

Masks of the built-in network take up to 0.45 each and 0.76 together (34 pictures at full size),
masks of noise 0.87 each.
"""
RECORD_BYTES = 20 * 1024
"""Growth of the record (32 regions, 8 frames, 12 KiB of provenance) and RQ's result of the job."""


def reservation(detection: Detection, *, external: bool) -> int:
    """Maximum size in bytes of the result of a queued detection in Redis.

    Args:
        detection: record; `view=glance` has no masks.
        external: whether masks are stored outside Redis.
    """
    pixels = detection.image.width * detection.image.height
    return reserved(pixels, masks=not external and detection.view.mode is not View.GLANCE)


def reserved(pixels: int, *, masks: bool) -> int:
    """Bytes to reserve for the result of a picture with this many pixels."""
    return RECORD_BYTES + (len(Head) * MASK_BYTES * pixels if masks else 0)


def ask_reserved(pipeline: Pipeline) -> None:
    """Add the command that reads the reserved bytes of all callers to `pipeline`."""
    scripts.RESERVED(client=pipeline)
