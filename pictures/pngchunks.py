"""Parser for the chunks of PNG files; decompresses nothing."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pictures.source import Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BODY = 8 * 2**20
"""Maximum size of a chunk that is read, in bytes; larger ones are skipped."""

_HEAD, _CHECK = 8, 4  # bytes before and after the content
_ANIMATION = struct.Struct(">II")  # acTL: numbers of frames and of repetitions


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk; `start` is its first byte, `body` its content, `end` follows its CRC."""

    kind: bytes
    start: int
    body: int
    end: int

    @property
    def critical(self) -> bool:
        """Whether decoders need the chunk."""
        return not self.kind[0] & 0x20


def chunks(source: Source, start: int = len(SIGNATURE)) -> Iterator[Chunk]:
    """Iterate over the chunks of a file; the last one may extend past its end.

    Raises:
        PictureError: If the file has too many parts.
    """
    while start + _HEAD <= len(source):
        head = source.read(start, _HEAD)
        body = start + _HEAD
        end = body + int.from_bytes(head[:4], "big") + _CHECK
        yield Chunk(head[4:], start, body, end)
        start = end


def declared_frames(content: bytes) -> int:
    """Number of frames that the content of an acTL chunk declares; 0 if browsers ignore it."""
    if len(content) != _ANIMATION.size:
        return 0
    frames, times = _ANIMATION.unpack(content)
    return frames if max(frames, times) < 2**31 else 0


def body(source: Source, chunk: Chunk) -> bytes | None:
    """Read the content of a chunk; None if its CRC is wrong or it exceeds `MAX_BODY`.

    Raises:
        PictureError: If the file is truncated or has too many parts.
    """
    size = chunk.end - _CHECK - chunk.body
    if size > MAX_BODY:
        return None
    content = source.read(chunk.body, size)
    check = source.number(chunk.end - _CHECK, _CHECK)
    return content if zlib.crc32(content, zlib.crc32(chunk.kind)) == check else None
