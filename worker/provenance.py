"""What the file of a picture says of its origin, for its record."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from app.contract.provenance import Provenance
from app.contract.schemas import Detection
from app.contract.settings import Settings
from pictures.decoders import Decoders, ProvenanceOptions
from pictures.provenance import watermark
from pictures.provenance.manifest import Manifests
from pictures.provenance.statement import fitting
from pictures.provenance.summary import summarise


class TrustListError(ValueError):
    """`GAMMA_TRUST_LIST` is no list of certificates."""


def options(settings: Settings) -> ProvenanceOptions:
    """How origins are read.

    Raises:
        TrustListError: see there.
    """
    try:
        Manifests(settings.trust_list)
    except (OSError, ValueError) as error:
        raise TrustListError(f"GAMMA_TRUST_LIST cannot be used: {error}") from error
    path = settings.trust_list
    return ProvenanceOptions(path and path.resolve(), settings.show_location)


class FileStatements:
    """What the file of one picture says, and the watermark in its pixels once they are there."""

    def __init__(self, decoders: Decoders, picture: bytes) -> None:
        self._statements = decoders.statements(picture)
        self.pixels: NDArray[np.uint8] | None = None
        """Of the decoded picture (H, W, 3); None: it is not decoded."""

    @property
    def provenance(self) -> Provenance:
        """The part of a record."""
        found = None if self.pixels is None else watermark.find(self.pixels)
        kept = fitting([*self._statements, *([] if found is None else [found])])
        return Provenance.model_validate(
            {"statements": [asdict(one) for one in kept], "summary": asdict(summarise(kept))}
        )

    def added_to(self, record: Detection) -> Detection:
        """The record with it."""
        return record.model_copy(update={"provenance": self.provenance})
