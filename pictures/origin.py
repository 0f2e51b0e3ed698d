"""What a file says of its origin: types that the API, workers and readers share."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue, with_config

_IN_RECORDS = ConfigDict(json_schema_serialization_defaults_required=True)


class Source(StrEnum):
    """Source of a statement."""

    C2PA = "c2pa"
    XMP = "xmp"
    IPTC = "iptc"
    EXIF = "exif"
    TEXT = "text"
    """Text of a generator in PNG text chunks or EXIF fields."""
    ALPHA = "alpha"
    """Text hidden in the lowest bits of a PNG's alpha channel, e.g. by NovelAI."""
    WATERMARK = "watermark"


class Says(StrEnum):
    """How the picture was made."""

    GENERATED = "generated"
    COMPOSITE = "composite"
    """Parts of it were generated."""
    CAPTURED = "captured"
    EDITED = "edited"


class Confidence(StrEnum):
    """How a statement is secured."""

    SIGNED_TRUSTED = "signed_trusted"
    """The signature matches the file, and its certificate chains to the trust list."""
    SIGNED_UNTRUSTED = "signed_untrusted"
    """The signature matches the file, but the signer is unknown: anyone can sign."""
    UNSIGNED = "unsigned"
    """No signature, or one that does not match: anyone can write it."""


@with_config(_IN_RECORDS)
@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the file about its origin, written by the creator of the file."""

    source: Annotated[
        Source,
        Field(
            description="`c2pa`: a signed manifest; `xmp`, `iptc`, `exif`: metadata; `text`: what "
            "a generator writes; `alpha`: the same, hidden in the opacity; `watermark`: an "
            "invisible one"
        ),
    ]
    says: Annotated[
        Says | None,
        Field(
            description="`generated` by AI; `composite`: parts are; `captured` with a camera; "
            "`edited`; null: none of these"
        ),
    ] = None
    by: Annotated[str | None, Field(description="signer, generator, camera or program")] = None
    confidence: Annotated[
        Confidence,
        Field(
            description="`signed_trusted`: the signature matches the file, and the signer is on "
            "the trust list; `signed_untrusted`: it matches, and anyone may have signed; "
            "`unsigned`: no signature that matches, anyone can write it"
        ),
    ] = Confidence.UNSIGNED
    details: Annotated[
        dict[str, JsonValue],
        Field(description="depends on the source, see docs/provenance.md; plain text, not HTML"),
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProvenanceSummary:
    """The strongest statement: trusted signatures first, then AI before editing before camera."""

    says: Annotated[
        Says | None, Field(description="null: no statement says it, which proves nothing")
    ]
    by: str | None
    confidence: Confidence | None
    text: Annotated[
        str, Field(description="one or two sentences, with what the statement is worth")
    ]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Statements of a file about its origin, and their summary."""

    statements: Annotated[list[Statement], Field(description="the C2PA manifest first")]
    summary: ProvenanceSummary
    incomplete: Annotated[
        bool,
        Field(description="whether some metadata could not be read: broken or beyond the limits"),
    ] = False

    def has(self, says: Says) -> bool:
        """Whether any statement says so."""
        return any(one.says is says for one in self.statements)
