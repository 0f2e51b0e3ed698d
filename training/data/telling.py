"""How much of a set tells on itself: what files say of their origin, as the service reads it."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pictures.header import read_header
from pictures.provenance import reading, watermark
from pictures.provenance.manifest import Manifests
from pictures.provenance.statement import Says, may_hold_manifest
from pictures.provenance.summary import summarise
from training.data.manifest import MAX_PIXELS


def says(data: bytes, pixels: NDArray[np.uint8] | None = None) -> Says | None:
    """The strongest statement of a picture file of one's own; None if it does not tell.

    It is read in this process, unlike in the service: files of strangers do not belong here.

    Args:
        data: The whole file.
        pixels: What it decodes to (H, W, 3), for watermarks; None: none is looked for.

    Raises:
        PictureError: It is no picture.
    """
    name = read_header(data, max_pixels=MAX_PIXELS).format
    found = reading.read(data, name, location=False)
    if may_hold_manifest(data):
        found = [*_manifests().read(data, name), *found]
    marked = None if pixels is None else watermark.find(pixels)
    return summarise([*found, *([] if marked is None else [marked])]).says


@cache
def _manifests() -> Manifests:
    return Manifests()
