"""Provenance in EXIF: camera, program and time; the location only if requested."""

from __future__ import annotations

import codecs
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from pictures.origin import Says, Source, Statement
from pictures.provenance import editors
from pictures.provenance.statement import MAX_TEXT, clean, present

_XMP, _IPTC = 700, 33723  # tags of TIFF
_CODES = {b"ASCII\0\0\0": "utf-8", b"UNICODE\0": "utf-16", b"\0" * 8: "utf-8"}
_ORDERS = ("utf-16-be", "utf-16-le")
for _order in _ORDERS:
    codecs.lookup(_order)  # loaded from a file, which the sandbox forbids later
_MAX_COMMENT = 2**16  # characters
_CAPTURE = (Base.ExposureTime, Base.FNumber, Base.ISOSpeedRatings, Base.FocalLength)
_TIMES = {
    "taken_at": Base.DateTimeOriginal,
    "digitized_at": Base.DateTimeDigitized,
    "changed_at": Base.DateTime,
}
# Tags in which generators write text, with the keywords used for it elsewhere.
_TEXTS = {
    Base.ImageDescription: "Description",
    Base.Software: "Software",
    Base.Artist: "Artist",
    Base.Make: "Make",
    Base.Model: "Model",
    Base.DocumentName: "DocumentName",
}


@dataclass
class Exif:
    """Parsed EXIF data."""

    tags: dict[int, Any]
    """Tags of the first directory and the EXIF subdirectory."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Keyword and text, possibly of generators."""
    xmp: bytes | None = None
    iptc: bytes | None = None
    place: dict[str, str] = field(default_factory=dict)

    @property
    def statements(self) -> list[Statement]:
        """Statements of the camera and of the program."""
        make, model = (clean(self.tags.get(tag, "")) for tag in (Base.Make, Base.Model))
        software = clean(self.tags.get(Base.Software, ""))
        times = {name: clean(self.tags.get(tag, "")) for name, tag in _TIMES.items()}
        details = present(
            make=make,
            model=model,
            lens=clean(self.tags.get(Base.LensModel, "")),
            software=software,
            **times,
            **self.place,
        )
        if not details:
            return []
        camera = model if model.startswith(make) else f"{make} {model}".strip()
        captured = bool(make and model) and any(tag in self.tags for tag in _CAPTURE)
        found = [
            Statement(
                Source.EXIF,
                Says.CAPTURED if captured else None,
                (camera if captured else software or camera) or None,
                details=details,
            )
        ]
        if editors.is_editor(software):
            edited = Statement(Source.EXIF, Says.EDITED, software, details={"software": software})
            found = (
                [*found, edited]
                if captured
                else [Statement(Source.EXIF, Says.EDITED, software, details=details)]
            )
        return found


def read(data: bytes, *, location: bool) -> Exif:
    """Read EXIF data.

    Args:
        data: A TIFF structure, or a TIFF file.
        location: Whether to read the location.

    Raises:
        Exception: Of any kind, if Pillow cannot parse the data.
    """
    exif = Image.Exif()
    exif.load(data)
    tags = dict(exif)
    with suppress(Exception):  # a broken subdirectory is skipped
        tags.update(exif.get_ifd(IFD.Exif))
    found = Exif(tags)
    for tag, keyword in _TEXTS.items():
        if isinstance(tags.get(tag), str):
            found.texts.append((keyword, tags[tag][:_MAX_COMMENT]))
    comment = tags.get(Base.UserComment)
    if isinstance(comment, bytes):
        found.texts.append(("UserComment", _comment(comment)))
    found.xmp, found.iptc = (_bytes(tags.get(tag)) for tag in (_XMP, _IPTC))
    if location:
        with suppress(Exception):
            found.place = _place(exif.get_ifd(IFD.GPSInfo))
    return found


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _comment(value: bytes) -> str:
    code, text = _CODES.get(value[:8]), value[8 : 8 + 2 * _MAX_COMMENT]
    if code is None:
        return value.decode("utf-8", "replace")[:_MAX_COMMENT]
    if code == "utf-16":  # byte order differs among programs; guess it from Latin text
        order = _ORDERS[text[::2].count(0) < text[1::2].count(0)]
        return text.decode(order, "replace").rstrip("\0")
    return text.decode(code, "replace").rstrip("\0")


def _place(gps: dict[int, Any]) -> dict[str, str]:
    """Latitude and longitude in degrees; south and west are negative."""
    found = {}
    for name, tag, reference in (
        ("latitude", GPS.GPSLatitude, GPS.GPSLatitudeRef),
        ("longitude", GPS.GPSLongitude, GPS.GPSLongitudeRef),
    ):
        degrees, minutes, seconds = (float(part) for part in gps[tag])
        sign = -1 if str(gps.get(reference, "")).upper()[:1] in ("S", "W") else 1
        found[name] = f"{sign * (degrees + minutes / 60 + seconds / 3600):.6f}"[:MAX_TEXT]
    return found
