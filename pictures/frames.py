"""Counting frames of animations and pages of TIFF without decoding pixels."""

from pictures import giffile, isomedia, pngchunks, tiff
from pictures.errors import PictureError
from pictures.source import Source

EXAMINED = 1
"""Number of the frame or page that `decoding` reads: the first that is displayed."""

_WEBP_CHUNKS, _WEBP_CHUNK_HEAD = 12, 8  # offset of the first chunk; bytes of type and size
_WEBP_FLAGS, _WEBP_ANIMATED = 20, 2


def count_frames(data: bytes, kind: str) -> int | None:
    """Count the frames of a file that `read_header` accepts.

    Args:
        data: The whole file.
        kind: Its format, one of `header.ALLOWED_FORMATS`.

    Returns:
        1 for a still; None if the file is truncated or has too many parts.
    """
    count = _COUNTERS.get(kind)
    if count is None:
        return 1
    try:
        return count(Source(data))
    except PictureError:
        return None


def _png(source: Source) -> int:
    for chunk in pngchunks.chunks(source):
        if chunk.kind == b"acTL":
            return max(1, source.number(chunk.body, 4))
        if chunk.kind == b"IDAT":
            break
    return 1


def _webp(source: Source) -> int:
    if source.read(_WEBP_CHUNKS, 4) != b"VP8X":
        return 1
    if not source.number(_WEBP_FLAGS, 1) & _WEBP_ANIMATED:
        return 1
    at, frames = _WEBP_CHUNKS, 0
    while at + _WEBP_CHUNK_HEAD <= len(source):
        frames += source.read(at, 4) == b"ANMF"
        size = source.number(at + 4, 4, "little")
        at += _WEBP_CHUNK_HEAD + size + size % 2
    return max(1, frames)


_COUNTERS = {
    "PNG": _png,
    "WEBP": _webp,
    "GIF": giffile.frames,
    "TIFF": tiff.pages,
    "AVIF": isomedia.frames,
    "HEIF": isomedia.frames,
}
