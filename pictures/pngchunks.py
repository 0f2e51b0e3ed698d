"""Chunks of PNG files, for readers of headers: nothing is decompressed here."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pictures.source import Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BODY = 8 * 2**20
"""Bytes of a chunk that is looked into; a larger one is skipped."""

_HEAD, _CHECK = 8, 4  # bytes before and behind what a chunk holds


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk: it begins at `start`, and what it holds at `body`; `end` is behind its CRC."""

    kind: bytes
    start: int
    body: int
    end: int

    @property
    def critical(self) -> bool:
        """Whether there is no picture without it."""
        return not self.kind[0] & 0x20


def chunks(source: Source, start: int = len(SIGNATURE)) -> Iterator[Chunk]:
    """The chunks of a file, up to its end; the last one may end beyond it.

    Raises:
        PictureError: As `Source.read`.
    """
    while start + _HEAD <= len(source):
        head = source.read(start, _HEAD)
        body = start + _HEAD
        end = body + int.from_bytes(head[:4], "big") + _CHECK
        yield Chunk(head[4:], start, body, end)
        start = end


def body(source: Source, chunk: Chunk) -> bytes | None:
    """What a chunk holds; None where its CRC is wrong, or it is too large.

    Raises:
        PictureError: As `Source.read`.
    """
    size = chunk.end - _CHECK - chunk.body
    if size > MAX_BODY:
        return None
    content = source.read(chunk.body, size)
    check = source.number(chunk.end - _CHECK, _CHECK)
    return content if zlib.crc32(content, zlib.crc32(chunk.kind)) == check else None
