"""Counts files whose metadata states their origin, as the service reads it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from pictures.errors import PictureError
from pictures.header import read_header
from pictures.origin import Says
from pictures.provenance import reading, watermark
from pictures.provenance.manifest import Manifests
from pictures.provenance.statement import may_hold_manifest
from pictures.provenance.summary import summarise
from training.data.labels import LABELS
from training.data.manifest import MAX_PIXELS, Row


def says(data: bytes, pixels: NDArray[np.uint8] | None = None) -> Says | None:
    """Return the strongest statement of a trusted picture file; None if it has none.

    It is read in this process, unlike in the service: do not call it with untrusted files.

    Args:
        data: The whole file.
        pixels: The decoded picture (H, W, 3), to look for watermarks; None: do not look for them.

    Raises:
        PictureError: If it is not a picture.
    """
    name = read_header(data, max_pixels=MAX_PIXELS).format
    found = reading.read(data, name, location=False).statements
    if may_hold_manifest(data):
        found = [*_manifests().read(data, name), *found]
    marked = None if pixels is None else watermark.find(pixels)
    return summarise([*found, *([] if marked is None else [marked])]).says


class ProvenanceCounts(BaseModel, frozen=True):
    """Number of pictures of a class whose files state how they were made."""

    pictures: int
    says: dict[str, int]
    """Number of pictures by statement; those without a statement are left out."""


def count(rows: Sequence[Row], folder: Path) -> dict[str, ProvenanceCounts]:
    """Count by class, `AI-generated` or `other`; unreadable files are without a statement."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        label = "AI-generated" if LABELS[row.kind].ai_generated else "other"
        with suppress(OSError, PictureError):
            stated = says((folder / row.path).read_bytes())
            if stated is not None:
                found[label][str(stated)] += 1
                continue
        found[label]["nothing"] += 1
    return {
        label: ProvenanceCounts(
            pictures=counts.total(), says={k: n for k, n in counts.items() if k != "nothing"}
        )
        for label, counts in sorted(found.items())
    }


@cache
def _manifests() -> Manifests:
    return Manifests()
