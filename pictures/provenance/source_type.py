"""IPTC digital source types, used in C2PA actions and in XMP."""

from pictures.origin import Says

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
"""Meaning by name; other names (art, screenshots, plain algorithms) have none of these."""


def name(source_type: str) -> str:
    """Name of a digital source type: the last part of its URI."""
    return source_type.strip().rstrip("/").rpartition("/")[2]
