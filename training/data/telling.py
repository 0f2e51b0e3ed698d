"""How much of a set tells on itself: what files say of their origin, as the service reads it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pictures.errors import PictureError
from pictures.header import read_header
from pictures.provenance import reading, watermark
from pictures.provenance.manifest import Manifests
from pictures.provenance.statement import Says, may_hold_manifest
from pictures.provenance.summary import summarise
from training.data.labels import LABELS
from training.data.manifest import MAX_PIXELS, Row


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


class Telling(BaseModel):
    """How many pictures of a class have files that say how they were made."""

    model_config = ConfigDict(frozen=True)

    pictures: int
    says: dict[str, int]
    """Pictures by what their files say; those that do not tell are left out."""


def count(rows: Sequence[Row], folder: Path) -> dict[str, Telling]:
    """Count by class, `AI-generated` or `other`; files that cannot be read do not tell."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        label = "AI-generated" if LABELS[row.kind].ai_generated else "other"
        with suppress(OSError, PictureError):
            told = says((folder / row.path).read_bytes())
            if told is not None:
                found[label][str(told)] += 1
                continue
        found[label]["nothing"] += 1
    return {
        label: Telling(
            pictures=counts.total(), says={k: n for k, n in counts.items() if k != "nothing"}
        )
        for label, counts in sorted(found.items())
    }


@cache
def _manifests() -> Manifests:
    return Manifests()
