"""Provenance of pictures for their records."""

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
    """`GAMMA_TRUST_LIST` cannot be read or contains no certificates."""


def options(settings: Settings) -> ProvenanceOptions:
    """Return the options for reading provenance.

    Raises:
        TrustListError: if `GAMMA_TRUST_LIST` cannot be used.
    """
    try:
        Manifests(settings.trust_list)
    except (OSError, ValueError) as error:
        raise TrustListError(f"GAMMA_TRUST_LIST cannot be used: {error}") from error
    path = settings.trust_list
    return ProvenanceOptions(path and path.resolve(), settings.show_location)


class FileStatements:
    """Statements of a picture's file, and of the watermark once its pixels are decoded."""

    def __init__(self, decoders: Decoders, picture: bytes) -> None:
        self._statements = decoders.statements(picture)
        self.pixels: NDArray[np.uint8] | None = None
        """Decoded picture (H, W, 3); None if it is not decoded."""

    @property
    def provenance(self) -> Provenance:
        """The provenance for the record."""
        found = None if self.pixels is None else watermark.find(self.pixels)
        kept = fitting([*self._statements, *([] if found is None else [found])])
        return Provenance.model_validate(
            {"statements": [asdict(one) for one in kept], "summary": asdict(summarise(kept))}
        )

    def added_to(self, record: Detection) -> Detection:
        """Return the record with its provenance."""
        return record.model_copy(update={"provenance": self.provenance})
