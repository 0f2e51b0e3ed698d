"""IPTC's digital source types: how a picture came about, in C2PA actions and in XMP."""

from pictures.provenance.statement import Says

SAYS = {
    "trainedAlgorithmicMedia": Says.GENERATED,
    "compositeWithTrainedAlgorithmicMedia": Says.COMPOSITE,
    "compositeSynthetic": Says.COMPOSITE,
    "digitalCapture": Says.CAPTURED,
    "computationalCapture": Says.CAPTURED,
    "negativeFilm": Says.CAPTURED,
    "positiveFilm": Says.CAPTURED,
    "print": Says.CAPTURED,
    "humanEdits": Says.EDITED,
    "minorHumanEdits": Says.EDITED,
    "algorithmicallyEnhanced": Says.EDITED,
    "composite": Says.EDITED,
    "compositeCapture": Says.EDITED,
}
"""By name; names that are not here (art, screenshots, plain algorithms) say none of these."""


def name(source_type: str) -> str:
    """The name of a digital source type, which files write as an address ending with it."""
    return source_type.strip().rstrip("/").rpartition("/")[2]
