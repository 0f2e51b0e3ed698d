"""Provenance in records: statements of a picture's file about its origin, separate from scores."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue

from pictures.origin import Confidence as Confidence
from pictures.origin import Says as Says
from pictures.origin import Source as Source


class Statement(BaseModel):
    """A statement of the file about its origin, written by the creator of the file."""

    source: Source = Field(
        description="`c2pa`: a signed manifest; `xmp`, `iptc`, `exif`: metadata; `text`: what a "
        "generator writes; `alpha`: the same, hidden in the opacity; `watermark`: an invisible one"
    )
    says: Says | None = Field(
        description="`generated` by AI; `composite`: parts are; `captured` with a camera; "
        "`edited`; null: none of these"
    )
    by: str | None = Field(description="signer, generator, camera or program")
    confidence: Confidence = Field(
        description="`signed_trusted`: the signature matches the file, and the signer is on the "
        "trust list; `signed_untrusted`: it matches, and anyone may have signed; `unsigned`: no "
        "signature that matches, anyone can write it"
    )
    details: dict[str, JsonValue] = Field(
        description="depends on the source, see docs/provenance.md; plain text, not HTML"
    )


class ProvenanceSummary(BaseModel):
    """The strongest statement: trusted signatures first, then AI before editing before camera."""

    says: Says | None = Field(description="null: no statement says it, which proves nothing")
    by: str | None
    confidence: Confidence | None
    text: str = Field(description="one or two sentences, with what the statement is worth")


class Provenance(BaseModel):
    """Statements of a file about its origin, and their summary."""

    statements: list[Statement] = Field(description="the C2PA manifest first")
    summary: ProvenanceSummary
    incomplete: bool = Field(
        False, description="whether some metadata could not be read: broken or beyond the limits"
    )

    def has(self, says: Says) -> bool:
        """Whether any statement says so."""
        return any(one.says is says for one in self.statements)
