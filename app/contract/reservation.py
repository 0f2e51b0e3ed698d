"""How much memory of Redis is reserved for the result of a detection, from its upload to its end.

An upload is refused unless its picture and all results that are still to be written fit into what
Redis may use (`app.contract.scripts.ACCEPT`), so that what was accepted can always be finished.
"""

from __future__ import annotations

from redis.client import Pipeline

from app.contract import scripts
from app.contract.schemas import Detection, Head, View

MASK_BYTES = 1
"""Bytes a pixel, of one mask.

As many as it has before it is compressed: an upper bound of the file. Masks of the network that
ships took up to 0.45 each and 0.76 both together (34 pictures at their own size), masks of noise
0.87 each.
"""
RECORD_BYTES = 20 * 1024
"""By which the record grows (32 regions, 12 KiB of provenance), and RQ's result of the job."""


def reservation(detection: Detection, *, external: bool) -> int:
    """Bytes that the result of a queued detection will take at most.

    Args:
        detection: its record; `view=glance` makes no masks.
        external: whether masks lie elsewhere than in Redis.
    """
    pixels = detection.image.width * detection.image.height
    return reserved(pixels, masks=not external and detection.view.mode is not View.GLANCE)


def reserved(pixels: int, *, masks: bool) -> int:
    """Bytes for the result of a picture of so many pixels, with masks in Redis or without."""
    return RECORD_BYTES + (len(Head) * MASK_BYTES * pixels if masks else 0)


def ask_reserved(pipeline: Pipeline) -> None:
    """Add the question how many bytes are reserved, for all callers, to `pipeline`."""
    scripts.RESERVED(client=pipeline)
