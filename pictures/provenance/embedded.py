"""Extraction of metadata from each container format; broken parts are skipped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image

from pictures import jpegfile, pngchunks
from pictures.pngchunks import Chunk
from pictures.source import Source

MAX_PART = 2**20
"""Maximum size of a part in bytes, decompressed; larger ones are skipped."""
MAX_PARTS = 32
"""Maximum number of parts of a kind, and of compressed texts of a PNG, that are read."""
MAX_TOTAL = 4 * 2**20
"""Maximum size of all parts of a file in bytes, and of what is decompressed for them."""

_EXIF, _XMP = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_SIZE = 6  # bytes of the EXIF prefix; the last one varies
_PHOTOSHOP, _APP13, _COMMENT = b"Photoshop 3.0\0", 0xED, 0xFE
_RESOURCE, _IPTC = b"8BIM", 0x0404
_PNG_XMP, _RAW = "XML:com.adobe.xmp", "Raw profile type "
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")


@dataclass
class Embedded:
    """The metadata of a file by kind, in the order of the file."""

    exif: list[bytes] = field(default_factory=list)
    """TIFF structures; for a TIFF file, the file itself."""
    xmp: list[bytes] = field(default_factory=list)
    iptc: list[bytes] = field(default_factory=list)
    """IIM datasets."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Keyword and text."""
    skipped: bool = False
    """Whether parts were skipped because they are broken, too large or too many."""
    left: int = MAX_TOTAL
    """Bytes of parts that may still be kept."""
    inflated: int = 0
    """Bytes decompressed so far, including those of skipped parts."""
    attempts: int = 0
    """Compressed texts so far."""

    def keep(self, parts: list[bytes], part: bytes) -> None:
        """Add a part to a list of this file, if it is within the limits."""
        if self._fits(len(part), len(parts)):
            parts.append(part)

    def keep_text(self, keyword: str, text: str) -> None:
        """Add a text, if it is within the limits."""
        if self._fits(len(text), len(self.texts)):
            self.texts.append((keyword, text))

    def _fits(self, size: int, count: int) -> bool:
        fits = size <= min(MAX_PART, self.left) and count < MAX_PARTS
        if fits:
            self.left -= size
        else:
            self.skipped = True
        return fits


def read(data: bytes, picture_format: str) -> Embedded:
    """Extract the metadata of a picture file.

    Args:
        data: The whole file.
        picture_format: One of `header.ALLOWED_FORMATS`.
    """
    found = Embedded()
    try:
        _read(data, picture_format, found)
    except Exception:  # of any kind, by Pillow; what was found before is kept
        found.skipped = True
    return found


def _read(data: bytes, picture_format: str, found: Embedded) -> None:
    if picture_format == "JPEG":
        _jpeg(Source(data), found)
    elif picture_format == "PNG":
        _png(Source(data), found)
    elif picture_format == "WEBP":
        _webp(data, found)
    elif picture_format == "TIFF":
        found.exif.append(data)
    else:
        _by_pillow(data, picture_format, found)


def _jpeg(source: Source, found: Embedded) -> None:
    data = source.data
    for segment in jpegfile.segments(source):
        if segment.end > len(data):
            return
        body = data[segment.body : segment.end]
        if segment.marker == jpegfile.APP1 and body.startswith(_EXIF):
            found.keep(found.exif, body[_EXIF_SIZE:])
        elif segment.marker == jpegfile.APP1 and body.startswith(_XMP):
            found.keep(found.xmp, body[len(_XMP) :])
        elif segment.marker == _APP13 and body.startswith(_PHOTOSHOP):
            for one in _resources(body[len(_PHOTOSHOP) :]):
                found.keep(found.iptc, one)
        elif segment.marker == _COMMENT:
            found.keep_text("Comment", body.decode("utf-8", "replace"))


def _resources(body: bytes) -> Iterator[bytes]:
    """The IPTC datasets among Photoshop's image resources."""
    at = 0
    while body.startswith(_RESOURCE, at) and at + 12 <= len(body):
        kind = int.from_bytes(body[at + 4 : at + 6], "big")
        start = at + 6 + (body[at + 6] + 2) // 2 * 2  # after a name padded to even length
        size = int.from_bytes(body[start : start + 4], "big")
        if kind == _IPTC:
            yield body[start + 4 : start + 4 + size]
        at = start + 4 + (size + 1) // 2 * 2


def _png(source: Source, found: Embedded) -> None:
    for chunk in pngchunks.chunks(source):
        if chunk.kind == b"eXIf":
            content = pngchunks.body(source, chunk)
            if content is None:
                found.skipped = True
            else:
                found.keep(found.exif, content)
        elif chunk.kind in _TEXT_CHUNKS:
            text = _png_text(source, chunk, found)
            if text is None:
                found.skipped = True
            else:
                _sort_text(*text, found)


def _png_text(source: Source, chunk: Chunk, found: Embedded) -> tuple[str, str] | None:
    content = pngchunks.body(source, chunk)
    if content is None:
        return None
    keyword, _, text = content.partition(b"\0")
    compressed = chunk.kind == b"zTXt"
    if compressed:
        text = text[1:]
    elif chunk.kind == b"iTXt":
        compressed = text[:1] == b"\1"
        text = (
            text[2:].partition(b"\0")[2].partition(b"\0")[2]
        )  # after language and translated keyword
    plain = _inflated(text, found) if compressed else text
    if plain is None or len(plain) > MAX_PART:
        return None
    name = keyword.decode("latin-1")
    if chunk.kind != b"iTXt":  # PNG says Latin-1, but most programs write UTF-8
        with suppress(UnicodeDecodeError):
            return name, plain.decode()
        return name, plain.decode("latin-1")
    return name, plain.decode("utf-8", "replace")


def _sort_text(keyword: str, text: str, found: Embedded) -> None:
    if keyword == _PNG_XMP:
        found.keep(found.xmp, text.encode())
    elif keyword.startswith(_RAW):  # written by ImageMagick: name, size, hexadecimal digits
        kinds = {"exif": found.exif, "APP1": found.exif, "xmp": found.xmp}
        kept, digits = kinds.get(keyword[len(_RAW) :]), text.strip().partition("\n")[2]
        if kept is None:
            return
        try:
            body = bytes.fromhex(digits.partition("\n")[2])
        except ValueError:
            found.skipped = True
            return
        found.keep(kept, body[_EXIF_SIZE:] if body.startswith(_EXIF) else body)
    else:
        found.keep_text(keyword, text)


def _webp(data: bytes, found: Embedded) -> None:
    at = 12
    for _ in range(8 * MAX_PARTS):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = at + 8
        if body + size > len(data) or not kind:
            return
        if kind == b"EXIF":
            content = data[body : body + size]
            found.keep(found.exif, content[_EXIF_SIZE:] if content.startswith(_EXIF) else content)
        elif kind == b"XMP ":
            found.keep(found.xmp, data[body : body + size])
        at = body + (size + 1) // 2 * 2
    found.skipped = True


def _by_pillow(data: bytes, picture_format: str, found: Embedded) -> None:
    """Metadata of GIF, AVIF and HEIF; decodes no pixels."""
    with Image.open(BytesIO(data), formats=(picture_format,)) as image:
        info = image.info
    exif, xmp, comment = info.get("exif"), info.get("xmp"), info.get("comment")
    if isinstance(exif, bytes):
        found.keep(found.exif, exif[_EXIF_SIZE:] if exif.startswith(_EXIF) else exif)
    if isinstance(xmp, bytes):
        found.keep(found.xmp, xmp)
    if isinstance(comment, bytes):
        found.keep_text("Comment", comment.decode("utf-8", "replace"))


def _inflated(content: bytes, found: Embedded) -> bytes | None:
    """Decompress; None if the result is too large or the data is broken."""
    found.attempts += 1
    limit = min(MAX_PART, MAX_TOTAL - found.inflated)
    if found.attempts > MAX_PARTS or not limit:
        return None
    try:
        text = zlib.decompressobj().decompress(content, limit + 1)
    except zlib.error:
        return None
    found.inflated += min(len(text), limit)
    return text if len(text) <= limit else None
