"""What a file says of its origin: the words that the API and the readers share."""

from enum import StrEnum


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
