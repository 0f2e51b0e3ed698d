"""Provenance of pictures for their records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from app.contract.schemas import Detection
from app.contract.settings import Settings
from pictures.decoders import Decoders, ProvenanceOptions
from pictures.origin import Provenance, Source, Statement
from pictures.provenance import watermark
from pictures.provenance.manifest import Manifests
from pictures.provenance.statement import Reading, fitting
from pictures.provenance.summary import summarise

T = TypeVar("T")

log = structlog.get_logger()


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
    """Statements of a picture's file, and of the watermark once its pixels are decoded.

    Errors are logged, not raised: statements are missing then, and the score is unaffected.
    """

    def __init__(self, decoders: Decoders, picture: bytes) -> None:
        self._found = _attempt(lambda: decoders.statements(picture), Reading(incomplete=True))
        self.pixels: NDArray[np.uint8] | None = None
        """Decoded picture (H, W, 3); None if it is not decoded."""

    @property
    def provenance(self) -> Provenance:
        """The provenance for the record."""
        statements = list(self._found.statements)
        pixels = self.pixels
        if pixels is not None:
            mark = _attempt(lambda: watermark.find(pixels), None)
            if mark is not None:  # before unsigned metadata, of which a file may have a lot
                first = sum(one.source is Source.C2PA for one in statements)
                statements.insert(first, mark)
        incomplete = self._found.incomplete
        unread = _provenance([], incomplete=True)
        return _attempt(lambda: _provenance(fitting(statements), incomplete=incomplete), unread)

    def added_to(self, record: Detection) -> Detection:
        """Return the record with its provenance."""
        return record.model_copy(update={"provenance": self.provenance})


def _provenance(statements: list[Statement], *, incomplete: bool) -> Provenance:
    summary = summarise(statements, incomplete=incomplete)
    return Provenance(statements=statements, summary=summary, incomplete=incomplete)


def _attempt(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except Exception:
        log.exception("provenance_failed")
        return otherwise
